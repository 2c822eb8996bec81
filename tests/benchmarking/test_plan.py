import pytest

from cxrnet.benchmarking.plan import check_plan
from cxrnet.benchmarking.running import GROUPS
from cxrnet.errors import CxrnetError


def test_all_groups_run_unless_some_are_asked_for(small_config):
    assert check_plan(small_config(), list(GROUPS)) == list(GROUPS)
    assert check_plan(small_config("only=[train,data]"), list(GROUPS)) == ["train", "data"]
    assert check_plan(small_config("only=frozen"), list(GROUPS)) == ["frozen"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("only=[frozen,fast]", "only: 'fast' is no group; give some of frozen, train, data, predict, startup, growth"),
        ("repeats=0", "repeats: 0; give a whole number from 1 on"),
        ("train.steps=0", "train.steps: 0; give a whole number from 1 on"),
        ("data.steps=null", "data.steps: None; give a whole number from 1 on"),
        (
            "timm_benchmark=no_such.py",
            "timm_benchmark: there is no file 'no_such.py'; give timm's benchmark.py, or null",
        ),
        ("images=many", "images: many; give a whole number"),
        ("size=224", r"size: 224 is not a size; give height and width in pixels, as \[224, 224\]"),
        ("models=[vgg11]", "models: 'vgg11' is none of .*mobilenet_v2"),
        ("precisions=[16-mixed]", "precisions: '16-mixed' is none of 32-true, bf16-mixed"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(small_config, change, message):
    with pytest.raises(CxrnetError, match=message):
        check_plan(small_config(change), list(GROUPS))
