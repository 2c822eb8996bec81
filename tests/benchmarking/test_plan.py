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
        ("growth.images=[]", r"growth.images: \[\] is no list of different numbers; give growth.images=\[1,2\]"),
        ("frozen.views=2", r"frozen.views: 2 is no list of different numbers; give frozen.views=\[1,2\], for example"),
        ("frozen.views=[0]", r"frozen.views\[0\]: 0; give a whole number from 1 on"),
        ("frozen.epochs=0", "frozen.epochs: 0; give a whole number from 1 on"),
        ("train.last=0", "train.last: 0; give a whole number from 1 on"),
        ("size=[32,0]", r"size\[1\]: 0; give a whole number from 1 on"),
        ("seed=abc", "seed: abc; give a whole number from 0 on"),
        ("only=[growth,growth]", r"only: \['growth', 'growth'\]; give each group once, or null for all"),
        ("only=[]", r"only: \[\]; give each group once, or null for all"),
        ("models=vgg16", r"models: 'vgg16' is no list; give models=\[mobilenet_v2\], for example"),
        ("growth.images=[10,few]", r"growth.images\[1\]: few; give a whole number from 1 on"),
        ("predict.images=all", "predict.images: all; give a whole number from 1 on"),
        ("growth.rows=0", "growth.rows: 0; give a whole number from 1 on"),
        ("images=many", "images: many; give a whole number"),
        ("size=224", r"size: 224 is not a size; give height and width in pixels, as \[224, 224\]"),
        ("models=[vgg11]", "models: 'vgg11' is none of .*mobilenet_v2"),
        ("precisions=[16-mixed]", "precisions: '16-mixed' is none of 32-true, bf16-mixed"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(small_config, change, message):
    with pytest.raises(CxrnetError, match=message):
        check_plan(small_config(change), list(GROUPS))
