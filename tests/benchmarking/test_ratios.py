import pytest

from cxrnet.benchmarking.ratios import Ratio, difference, quotient, repaid_after


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
        "name": "a / b", "value": value, "target": target, "sense": sense, "unit": "", "met": met
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
