import pytest
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.heads import make_head, make_pool


def head(**changes) -> nn.Sequential:
    settings = {"hidden": (), "activation": "relu", "batch_norm": False, "dropout": 0.2, "output": "softmax"}
    return make_head(16, changes.pop("n_classes", 3), **{**settings, **changes})


def names(module: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_a_plain_head_is_one_layer():
    assert names(head()) == ["Dropout", "Linear"]


def test_every_dense_layer_has_its_batch_norm_dropout_and_activation():
    made = head(hidden=(8, 4), batch_norm=True, dropout=(0.1, 0.5, 0.0), activation="gelu")
    dense = ["BatchNorm1d", "Dropout", "Linear", "GELU"]
    assert names(made) == dense + dense + dense[:3]
    assert [layer.p for layer in made if isinstance(layer, nn.Dropout)] == [0.1, 0.5, 0.0]
    assert [layer.num_features for layer in made if isinstance(layer, nn.BatchNorm1d)] == [16, 8, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 256}, r"model.hidden: 256; give a list of widths, as \[256\], or \[\]"),
        ({"hidden": (0,)}, "model.hidden: .*; give a list of widths"),
        ({"activation": "swish"}, "model.activation: 'swish' is not known; choose one of relu, gelu, elu, tanh, silu"),
        ({"batch_norm": "no"}, "model.batch_norm: 'no'; give true or false"),
        ({"dropout": 1.5}, "model.dropout: 1.5; give a probability"),
        ({"dropout": ("a",)}, "model.dropout: .*; give a probability"),
        ({"hidden": (8,), "dropout": (0.2,)}, "model.dropout: 1 rates for 2 dense layers; give one for each layer"),
        ({"output": "softmin"}, "model.output: 'softmin' is not known; choose softmax or sigmoid"),
        ({"output": "sigmoid"}, "model.output: sigmoid tells two classes apart, the data have 3; give softmax"),
    ],
)
def test_heads_that_cannot_be_built(changes, message):
    with pytest.raises(CxrnetError, match=message):
        head(**changes)


@pytest.mark.parametrize(
    ("kind", "window", "message"),
    [
        ("average", 4, r"model.pool_window: 4; give the window's height and width, as \[4, 4\], or null"),
        ("max", (4,), "give the window's height"),
        ("average", (4, 0), "give the window's height"),
        ("flatten", (4, 4), "model.pool_window: pool 'flatten' has no windows; give null, or pool average or max"),
        ("own", (4, 4), "pool 'own' has no windows"),
        ("middle", None, "model.pool: 'middle' is not known"),
    ],
)
def test_pools_that_cannot_be_built(kind, window, message):
    with pytest.raises(CxrnetError, match=message):
        make_pool(kind, window)
