import pytest

from cxrnet.benchmarking.ratios import Ratio, difference, over_rounds, quotient, repaid_after


@pytest.mark.parametrize(
    ("value", "target", "sense", "met"),
    [
        (10.0, 10.0, "at least", True),
        (9.9, 10.0, "at least", False),
        (0.03, 0.03, "at most", True),
        (0.04, 0.03, "at most", False),
        (None, 10.0, "at least", None),
        (10.0, None, "at least", None),
    ],
)
def test_a_target_is_met_on_its_side(value, target, sense, met):
    ratio = Ratio("a / b", value, target, sense)
    assert ratio.met is met
    assert ratio.to_dict() == {
        "name": "a / b", "value": value, "target": target, "sense": sense, "unit": "", "extremes": None, "met": met
    }  # fmt: skip


def test_what_was_not_measured_gives_no_number():
    assert quotient(6.0, 3.0) == 2.0
    assert difference(6.0, 4.0) == 2.0
    assert quotient(None, 3.0) is quotient(6.0, None) is quotient(6.0, 0.0) is None
    assert difference(None, 3.0) is difference(6.0, None) is None
    assert repaid_after(None, 1.0, 2.0) is repaid_after(1.0, None, 2.0) is repaid_after(1.0, 2.0, None) is None


def test_what_a_faster_rate_costs_at_first_is_paid_by_the_time_it_saves():
    assert repaid_after(60.0, 10.0, 20.0) == pytest.approx(1200)  # 120 s at 10 a second are 60 s at 20, and 60 s
    assert repaid_after(-5.0, 10.0, 20.0) == 0
    assert repaid_after(60.0, 20.0, 20.0) is repaid_after(60.0, 20.0, 10.0) is None


def test_ratios_are_taken_in_each_round_and_their_median_counts():
    # Of medians it would be 20 / 20: the machine was slow in the second round, and slower still in the third.
    rounds = [(36.0, 40.0), (20.0, 20.0), (9.0, 10.0)]
    (ratio,) = over_rounds([[Ratio("a / b", quotient(*rates), 0.95)] for rates in rounds])
    assert ratio.value == pytest.approx(0.9)
    assert ratio.extremes == pytest.approx((0.9, 1.0))
    assert ratio.met is False


def test_a_round_may_leave_a_ratio_out():
    cost, pays = Ratio("compiling takes", 60.0), Ratio("has paid after", 1200.0)
    later = Ratio("has paid after", 1400.0)
    assert [ratio.name for ratio in over_rounds([[cost], [cost], [cost, pays]])] == ["compiling takes"]
    found = {ratio.name: ratio.value for ratio in over_rounds([[cost, pays], [cost], [cost, later]])}
    assert found == {"compiling takes": 60.0, "has paid after": 1300.0}


@pytest.mark.parametrize(
    ("values", "median"), [([None, 2.0], 2.0), ([None, 2.0, 4.0], 3.0), ([None, None, 4.0], None), ([None], None)]
)
def test_what_most_rounds_do_not_have_is_not_there(values, median):
    (ratio,) = over_rounds([[Ratio("images until it pays", value)] for value in values])
    assert ratio.value == median
    assert (ratio.extremes is None) is (median is None)
