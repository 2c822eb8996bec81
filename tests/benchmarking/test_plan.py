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
        (
            "keras_python=nowhere",
            "keras_python: there is no file 'nowhere'; give a Python that has TensorFlow, or null",
        ),
        ("growth.images=[]", r"growth.images: \[\] is no list of numbers of images; give growth.images=\[1000,"),
        ("growth.images=[10,few]", r"growth.images\[1\]: few; give a whole number from 1 on"),
        ("predict.images=all", "predict.images: all; give a whole number from 1 on"),
        ("growth.rows=0", "growth.rows: 0; give a whole number from 1 on"),
        ("overrides=['cache=/fast']", "overrides: 'cache=/fast' can't be given; each job has a cache of its own"),
        ("overrides=['++data.cache=/fast']", r"overrides: '\+\+data.cache=/fast' can't be given"),
        ("images=many", "images: many; give a whole number"),
        ("size=224", r"size: 224 is not a size; give height and width in pixels, as \[224, 224\]"),
        ("models=[vgg11]", "models: 'vgg11' is none of .*mobilenet_v2"),
        ("precisions=[16-mixed]", "precisions: '16-mixed' is none of 32-true, bf16-mixed"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(small_config, change, message):
    with pytest.raises(CxrnetError, match=message):
        check_plan(small_config(change), list(GROUPS))
