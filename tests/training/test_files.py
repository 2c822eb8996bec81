import io
import pickle
import zipfile

import pytest
import torch

from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import frozen_names, set_trainable
from cxrnet.training.checkpoints import PlainFiles, checkpoint, complete_kept, load_kept


@pytest.fixture
def trained(make_network, tmp_path):
    """A network and the best checkpoint of its head, which lacks the backbone."""
    network = make_network()
    set_trainable(network, "head")
    with torch.no_grad():
        network.head[1].weight.fill_(7.0)
    frozen = frozen_names(network)
    state = {f"network.{name}": value for name, value in network.state_dict().items() if name not in frozen}
    file = checkpoint(tmp_path, "head", "kept")
    PlainFiles().save_checkpoint({"state_dict": {**state, "loss.weight": torch.ones(3)}, "epoch": 4}, file)
    return network, file


def test_what_a_checkpoint_lacks_stays_as_it_is(trained, make_network, tmp_path):
    other = make_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.5)
    load_kept(other, tmp_path, "head")
    assert (other.head[1].weight == 7.0).all()
    assert (other.backbone.block1[0].weight == 0.5).all()


def test_a_completed_checkpoint_is_the_whole_network(trained, make_network, tmp_path):
    network, file = trained
    complete_kept(network, tmp_path, "head")
    content = torch.load(file, weights_only=True)
    assert content["epoch"] == 4
    assert set(content["state_dict"]) == {f"network.{name}" for name in network.state_dict()} | {"loss.weight"}
    other = make_network()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.5)
    load_kept(other, tmp_path, "head")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())
    assert [path.name for path in file.parent.iterdir()] == ["kept.ckpt"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(trained):
    _, file = trained
    with pytest.raises(AttributeError, match="pickle"):
        PlainFiles().save_checkpoint({"epoch": 5, "a lambda": lambda: None}, file)
    assert torch.load(file, weights_only=True)["epoch"] == 4
    assert [path.name for path in file.parent.iterdir()] == ["kept.ckpt"]


class Loud:
    def __reduce__(self):
        return print, ("unpickled",)


def _zipped(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def _saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        (b"", "can't be read"),
        (b"abc", "(can't be read|holds something else than plain values)"),
        (pickle.dumps(Loud()), "(can't be read|holds something else than plain values)"),
        (_zipped("archive/data.pkl", pickle.dumps(Loud())), "(can't be read|holds something else than plain values)"),
        (_zipped("loud.pkl", pickle.dumps(Loud())), "can't be read"),
        (_saved(Loud()), "holds something else than plain values"),
        (_saved([1]), "is no checkpoint of a run"),
        (_saved({"state_dict": {"network.head.1.weight": torch.ones(9)}}), "is of another network"),
        (_saved({"state_dict": {}})[:-40], "can't be read"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_runs_no_code(trained, tmp_path, capsys, content, reason):
    network, file = trained
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(CxrnetError, match=rf"^resume: '.*kept.ckpt' {reason}.*; (bring .* or )?start a new run$"):
        load_kept(network, tmp_path, "head")
    assert capsys.readouterr().out == ""
