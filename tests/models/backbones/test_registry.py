import pytest
import torch
import torchvision.models as tv
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import stages
from cxrnet.models.backbones.registry import backbone_spec


def published_features(name: str) -> nn.Module:
    model = getattr(tv, name)(weights=None)
    for head in ("classifier", "fc"):
        if hasattr(model, head):
            setattr(model, head, nn.Identity())
    return model


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "vgg16", "vgg19"])
def test_names_and_shapes_are_those_of_torchvision_without_the_classifier(name):
    with torch.device("meta"):
        ours, published = backbone_spec(name).build((64, 48)).state_dict(), published_features(name).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in published.items()}


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_features_are_those_of_torchvision(name):
    torch.manual_seed(0)
    ours, published = backbone_spec(name).build((64, 48)).eval(), published_features(name).eval()
    published.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 48)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images).mean(dim=(2, 3)), published(images))


def test_custom_cnn_has_three_blocks_of_32_64_and_128_channels_with_max_pooling():
    parts = stages(backbone_spec("custom_cnn").build((64, 48)))
    assert list(parts) == ["block1", "block2", "block3"]
    channels = [next(m.out_channels for m in part if isinstance(m, nn.Conv2d)) for part in parts.values()]
    assert channels == [32, 64, 128]
    assert all(isinstance(part[-1], nn.MaxPool2d) for part in parts.values())


def test_an_unknown_backbone_is_answered_with_the_known_ones():
    with pytest.raises(CxrnetError, match=r"model.backbone: 'resnet51' is not known; choose one of mobilenet_v2, resn"):
        backbone_spec("resnet51")
