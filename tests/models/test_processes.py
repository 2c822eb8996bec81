"""Processes of gloo on the CPU, three, the last of which has no image."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.processes import SyncedBatchNorm, synced_batch_norms, whole_batch

PROCESSES = 3
N = (5, 2)  # images in the batches: shares of 2, 2 and 1 of them, and of 1, 1 and none


def network() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4, affine=False, momentum=None)]
    return nn.Sequential(*layers, nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3)).double()


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(2)
    return [(3 + torch.randn(n, 2, 6, 6).double(), torch.randint(3, (n,))) for n in N]


def steps(model: nn.Module, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """The state after a step on each batch, and its logits."""
    loss, optimizer, found = nn.CrossEntropyLoss(torch.tensor([1.0, 2, 5]).double()), None, {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, (images, labels) in enumerate(batches()):
        logits, own = model(images[rank::processes]), labels[rank::processes]
        if processes > 1:
            logits, own = whole_batch(logits, len(labels)), whole_batch(own, len(labels))
        assert torch.equal(own, labels)
        optimizer.zero_grad()
        (processes * loss(logits, own)).backward()
        for parameter in model.parameters() if processes > 1 else ():
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes  # as DDP does
        optimizer.step()
        found[f"logits {number}"] = logits.detach()
    return found | {name: value.clone() for name, value in model.state_dict().items()}


def work(rank: int, place: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=PROCESSES)
    model = network()
    with synced_batch_norms(model, PROCESSES):
        assert sum(type(module) is SyncedBatchNorm for module in model.modules()) == 3
        found = steps(model, rank, PROCESSES)
        halves = model[1].float()(torch.ones(2, 4, 3, 3, dtype=torch.bfloat16))
    assert (halves.dtype, type(model[1])) == (torch.bfloat16, nn.BatchNorm2d)
    if rank == PROCESSES - 1:  # which has the fewest images
        Path(f"{place}.result").write_bytes(pickle.dumps({name: value.numpy() for name, value in found.items()}))
    dist.destroy_process_group()


def test_processes_with_unequal_shares_and_none_do_what_one_does(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path / "store"),), PROCESSES)
    found, expected = pickle.loads((tmp_path / "store.result").read_bytes()), steps(network(), 0, 1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((torch.from_numpy(found[name]) - value).abs().max()) < 1e-12, name


class OwnNorm(nn.BatchNorm2d):
    pass


def test_a_kind_of_batch_norm_that_is_not_known_is_refused():
    model = nn.Sequential(OwnNorm(3))
    with (
        pytest.raises(CxrnetError, match=r"^trainer: OwnNorm can't train on several devices; give trainer.devices=1"),
        synced_batch_norms(model, 2),
    ):
        pass
    with synced_batch_norms(model, 1):
        assert type(model[0]) is OwnNorm


def test_activation_and_dropout_of_timms_batch_norm_stay():
    timm = pytest.importorskip("timm.layers")
    norm = timm.BatchNormAct2d(3).eval()
    images = torch.randn(4, 3, 5, 5)
    expected = copy.deepcopy(norm)(images)
    with synced_batch_norms(norm, 2):
        assert torch.equal(norm(images), expected)
    assert type(norm) is timm.BatchNormAct2d
