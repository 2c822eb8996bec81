import logging
import os
import pickle
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones import weights as module
from cxrnet.models.backbones.registry import BACKBONES, BackboneSpec, backbone_spec, from_url
from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.bundle import Bundle, save_bundle

SIZE = (32, 32)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, in place of the one of the person who runs the tests."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def publish(tmp_path, cache, monkeypatch):
    """Publishes a state_dict as the ImageNet weights of the custom CNN, at an address that torch.hub can open."""

    def make(state: dict, wrong_hash: bool = False):
        file = tmp_path / "new.pth"
        torch.save(state, file)
        digest = "0" * 8 if wrong_hash else sha256(file.read_bytes()).hexdigest()[:8]
        file = file.rename(tmp_path / f"custom_cnn-{digest}.pth")
        spec = BackboneSpec(BACKBONES["custom_cnn"].build, from_url(file.as_uri()))
        monkeypatch.setitem(BACKBONES, "custom_cnn", spec)
        return file

    return make


def backbone(seed: int = 1, name: str = "custom_cnn") -> nn.Module:
    torch.manual_seed(seed)
    return backbone_spec(name).build(SIZE)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_auto_downloads_and_then_takes_the_cache(publish, cache):
    wanted = backbone(1)
    file = publish({**wanted.state_dict(), "classifier.weight": torch.zeros(2)})
    for _ in range(2):
        got = backbone(2)
        loaded = load_weights(got, "custom_cnn", "auto", SIZE)
        assert same(got, wanted)
        assert (loaded.origin, loaded.detail, loaded.fallback) == ("imagenet", file.as_uri(), False)
        assert loaded.unused == ("classifier.weight",)
        assert loaded.pretrained
        file.unlink(missing_ok=True)  # the second time there is only the cache
    assert [path.name for path in cache.iterdir()] == [file.name]


def test_a_download_with_a_wrong_hash_is_not_used(publish, cache, caplog):
    publish(backbone(1).state_dict(), wrong_hash=True)
    got = backbone(2)
    loaded = load_weights(got, "custom_cnn", "auto", SIZE)
    assert same(got, backbone(2))
    assert loaded.fallback
    assert "invalid hash value" in caplog.text
    assert list(cache.iterdir()) == []


def test_auto_without_any_way_to_the_weights_falls_back_loudly(cache, monkeypatch, caplog):
    monkeypatch.setattr(torch.hub, "urlopen", _no_way_out)
    got = backbone(2, "mobilenet_v2")
    loaded = load_weights(got, "mobilenet_v2", "auto", SIZE)
    assert same(got, backbone(2, "mobilenet_v2"))
    assert (loaded.origin, loaded.fallback, loaded.pretrained) == ("random", True, False)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "ImageNet weights for mobilenet_v2 can't be had" in warnings[0]
    assert "mobilenet_v2-b0353104.pth" in warnings[0]
    assert warnings[0].endswith("Training from scratch, with nothing frozen.")
    assert "\n" not in warnings[0]


def _no_way_out(*_args, **_kwargs):
    raise OSError("no route to host")


def test_the_time_out_holds_for_the_download_alone(cache, monkeypatch):
    import socket

    seen = []
    monkeypatch.setattr(torch.hub, "urlopen", lambda *a, **k: seen.append(socket.getdefaulttimeout()) or _no_way_out())
    load_weights(backbone(2, "mobilenet_v2"), "mobilenet_v2", "auto", SIZE)
    assert seen == [module.DOWNLOAD_TIMEOUT]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"\x80\x02\x81." * 9, b"\x80\x02q.", b"\xff" * 3000],
    ids=["empty", "page", "empty stack", "cut", "noise"],
)
def test_a_damaged_file_in_the_cache_is_named(cache, caplog, content):
    file = cache / "mobilenet_v2-b0353104.pth"
    file.write_bytes(content)
    assert load_weights(backbone(2, "mobilenet_v2"), "mobilenet_v2", "auto", SIZE).fallback
    assert f"'{file}' is damaged" in caplog.text
    with pytest.raises(CxrnetError, match=r"is damaged .*; delete it"):
        load_weights(backbone(2, "mobilenet_v2"), "mobilenet_v2", "imagenet", SIZE)


def test_where_none_are_published(cache, caplog):
    loaded = load_weights(backbone(), "custom_cnn", "auto", SIZE)
    assert (loaded.origin, loaded.fallback, loaded.detail) == ("random", False, "none are published for custom_cnn")
    with pytest.raises(CxrnetError, match="there are no ImageNet weights for custom_cnn; use auto, none or a file"):
        load_weights(backbone(), "custom_cnn", "imagenet", SIZE)
    assert not caplog.records


def file_of(kind: str, network, folder) -> str:
    """The custom CNN's weights as people have them."""
    state = network.backbone.state_dict()
    if kind == "safetensors":
        tensors = {name: value.contiguous() for name, value in state.items()}
        save_file({**tensors, "classifier.1.weight": torch.zeros(2, 2)}, folder / "a.safetensors")
        return str(folder / "a.safetensors")
    if kind == "bundle":
        save_bundle(Bundle(network, "stretch", 1.0, {}, "", {}, {}), folder / "bundle")
        return str(folder / "bundle" / "model.safetensors")
    contents = {
        "state_dict": {**state, "fc.bias": torch.zeros(2)},
        "DataParallel": {f"module.{name}": value for name, value in state.items()},
        "without counters": {name: value for name, value in state.items() if "num_batches" not in name},
        "checkpoint": {
            "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
            "epoch": 3,
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        },
    }
    torch.save(contents[kind], folder / "a.pt")
    return str(folder / "a.pt")


@pytest.mark.parametrize(
    ("kind", "unused"),
    [
        ("safetensors", ("classifier.1.weight",)),
        ("state_dict", ("fc.bias",)),
        ("DataParallel", ()),
        ("without counters", ()),
        ("checkpoint", ("head.1.weight", "head.1.bias")),
        ("bundle", ("head.1.bias", "head.1.weight")),
    ],
)
def test_files(make_network, tmp_path, kind, unused):
    network = make_network()
    path = file_of(kind, network, tmp_path)
    got = backbone(2)
    loaded = load_weights(got, "custom_cnn", path, SIZE)
    assert same(got, network.backbone)
    assert loaded.origin == "file"
    assert set(loaded.unused) == set(unused)


def test_another_architecture_is_told_by_missing_unexpected_and_misfitting_keys(make_network, tmp_path):
    state = dict(make_network().backbone.state_dict())
    state["features.0.0.weight"] = state.pop("block1.0.weight")
    state["block2.0.weight"] = torch.zeros(64, 32, 5, 5)
    torch.save(state, tmp_path / "other.pt")
    got = backbone(2)
    with pytest.raises(CxrnetError) as caught:
        load_weights(got, "custom_cnn", str(tmp_path / "other.pt"), SIZE)
    message = str(caught.value)
    assert f"'{tmp_path / 'other.pt'}' is not of the architecture custom_cnn" in message
    assert "1 missing (block1.0.weight)" in message
    assert "1 of another shape (block2.0.weight)" in message
    assert "1 unexpected (features.0.0.weight)" in message
    assert same(got, backbone(2))


class Command:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("kind", ["zip", "pickle", "module"])
def test_a_file_that_could_run_code_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "pickle":
        (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Command()}))
    else:
        torch.save({"a": Command()} if kind == "zip" else nn.Linear(2, 2), "evil.pt")
    with pytest.raises(CxrnetError, match=r"'evil.pt' holds something else than plain tensors and is not loaded"):
        load_weights(backbone(), "custom_cnn", "evil.pt", SIZE)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"\x00" * 500, b"\x80\x02\x81." * 9],
    ids=["empty", "page", "zeros", "empty stack"],
)
def test_a_corrupt_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        CxrnetError, match=rf"model.weights: '{tmp_path / name}' (can't be read|holds something else)"
    ) as e:
        load_weights(backbone(), "custom_cnn", str(tmp_path / name), SIZE)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 1}}, {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict(tmp_path, content):
    with pytest.raises(CxrnetError, match="is not a file; use auto, imagenet, none or an existing file"):
        load_weights(backbone(), "custom_cnn", str(tmp_path / "imagnet"), SIZE)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CxrnetError, match=r"holds no state_dict; save model.state_dict()"):
        load_weights(backbone(), "custom_cnn", str(tmp_path / "a.pt"), SIZE)
