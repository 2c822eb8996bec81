"""Backbones of timm. Its ``test_...`` networks are real architectures, a few layers deep."""

import logging
import subprocess
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import stages
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.freezing import set_trainable

NOBODY = "http://127.0.0.1:9"  # a port where nothing listens
FILE_URL = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


@pytest.fixture
def make_timm(make_network):
    return lambda name, **changes: make_network(**{"backbone": f"timm/{name}", "pool": "own", **changes})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, and no hub behind it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", FILE_URL.format(NOBODY))
    return tmp_path / "hub"


def keep(hub, name: str, content: bytes):
    """Put the weights of a network into the cache, as the hub's client does."""
    folder = hub / f"models--timm--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    file = folder / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def published(name: str) -> dict[str, torch.Tensor]:
    """A state with the classifier, as it is published."""
    torch.manual_seed(1)
    return timm.create_model(name).state_dict()


def images(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 1, *size), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_resnet", (64, 48)),
        ("test_vit", (64, 48)),  # position embeddings, a class token
        ("swin_tiny_patch4_window7_224", (64, 64)),  # channels last
        ("convnext_atto", (64, 48)),
    ],
)
def test_features_and_logits_of_every_kind_of_network(make_timm, name, size):
    network = make_timm(name, size=size).eval()
    with torch.inference_mode():
        features = network.features(images(*size))
        assert features.shape == (2, network.n_features)
        torch.testing.assert_close(features, network.backbone(network.normalise(images(*size))))
        assert network(images(*size)).shape == (2, 3)


@pytest.mark.shared
def test_a_file_gives_the_features_of_timms_own_network(shared, make_timm):
    path = shared / "weights" / "efficientnet_lite0-imagenet.safetensors"
    network = make_timm("tf_efficientnet_lite0", size=(96, 80), mean=(0.5,) * 3, std=(0.5,) * 3).eval()
    loaded = load_weights(network.backbone, "timm/tf_efficientnet_lite0", str(path), (96, 80))
    assert (loaded.origin, loaded.unused) == ("file", ("classifier.bias", "classifier.weight"))
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(load_file(path), strict=True)
    x = images(96, 80)
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features(x.expand(-1, 3, -1, -1) / 127.5 - 1), pre_logits=True)
        torch.testing.assert_close(network.features(x), expected, atol=1e-4, rtol=1e-4)


def test_weights_in_the_cache_need_no_network(make_timm, hub):
    state = published("test_resnet")
    keep(hub, "test_resnet.r160_in1k", save(state))
    backbone = make_timm("test_resnet").backbone
    loaded = load_weights(backbone, "timm/test_resnet", "imagenet", (32, 32))
    assert (loaded.origin, loaded.detail) == ("imagenet", "hf-hub:timm/test_resnet.r160_in1k")
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_position_embeddings_are_fitted_to_the_size(make_timm, hub):
    state = published("test_vit")
    keep(hub, "test_vit.r160_in1k", save(state))
    backbone = make_timm("test_vit", size=(64, 48)).backbone
    assert load_weights(backbone, "timm/test_vit", "imagenet", (64, 48)).origin == "imagenet"
    assert torch.equal(backbone.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert backbone.pos_embed.shape != state["pos_embed"].shape


def test_without_a_network_it_falls_back_loudly(make_timm, hub, caplog):
    backbone = make_timm("test_resnet").backbone
    loaded = load_weights(backbone, "timm/test_resnet", "auto", (32, 32))
    assert (loaded.origin, loaded.fallback) == ("random", True)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("ImageNet weights for timm/test_resnet can't be had: hf-hub:timm/test_resnet.r160_in1k (")
    assert warning.endswith("). Training from scratch, with nothing frozen.")
    with pytest.raises(CxrnetError, match=r"can't be had: hf-hub.*; name one with model.weights=<file>") as caught:
        load_weights(backbone, "timm/test_resnet", "imagenet", (32, 32))
    assert "\n" not in str(caught.value)


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for a file of a repository."""

    def __init__(self, *args, content: bytes, asked: list[str], **kwargs):
        self.content, self.asked = content, asked
        super().__init__(*args, **kwargs)

    def do_HEAD(self):
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        for name, value in (("ETag", '"e1"'), ("X-Repo-Commit", "abc"), ("Content-Length", str(len(self.content)))):
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *args):
        pass


def test_a_download_goes_into_the_cache(make_timm, hub, monkeypatch):
    state, asked = published("test_resnet"), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, content=save(state), asked=asked))
    Thread(target=server.serve_forever, daemon=True).start()
    address = FILE_URL.format(f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    for _ in range(2):
        backbone = make_timm("test_resnet").backbone
        assert load_weights(backbone, "timm/test_resnet", "auto", (32, 32)).origin == "imagenet"
        assert torch.equal(backbone.conv1[0].weight, state["conv1.0.weight"])
        server.shutdown()  # the second time there is only the cache
    server.server_close()
    assert asked[-1] == "GET /timm/test_resnet.r160_in1k/resolve/main/model.safetensors"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "model.backbone: timm has no 'resnet81'; nearest: .*resnet"),
        ("?", r"model.backbone: timm has no '\?'; timm.list_models\(\) names all"),
        ("resnet18.mine", "timm has no weights 'mine' for resnet18; it has resnet18.a1_in1k, "),
    ],
)
def test_a_name_that_timm_does_not_have(name, message):
    with pytest.raises(CxrnetError, match=message):
        backbone_spec(f"timm/{name}")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "test_resnet",
            {"pool": "max"},
            "model.pool: timm/test_resnet pools by a rule of its own; give model.pool=own",
        ),
        ("test_resnet", {"pool_window": (2, 2)}, "model.pool_window: pool 'own' has no windows"),
        ("test_vit", {"size": (8, 8)}, "data.size: "),
        ("crossvit_9_240", {"size": (100, 64)}, r"data.size: 100 x 64 pixels don't suit timm/crossvit_9_240 \("),
    ],
)
def test_what_does_not_go_together(make_timm, name, changes, message):
    with pytest.raises(CxrnetError, match=message):
        make_timm(name, **changes)


def test_stages_have_names_to_begin_from(make_timm):
    network = make_timm("test_vit")
    assert [name for name in stages(network.backbone) if "." in name] == [f"blocks.{i}" for i in range(6)]
    set_trainable(network, {"from": "blocks.5"})
    free = {name.split(".")[0] for name, p in network.backbone.named_parameters() if p.requires_grad}
    assert free == {"blocks", "norm"}


def test_timm_is_imported_when_it_is_asked_for():
    heavy = "{'timm', 'huggingface_hub'}"
    code = f"import sys, cxrnet.models.backbones.weights; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
