import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cxrnet.data.loaders import EpochSampler
from cxrnet.errors import CxrnetError

LABELS = torch.tensor([0] * 700 + [1] * 200 + [2] * 101)


def orders(epochs, draw="shuffle", **settings) -> list[list[int]]:
    """The order of each epoch, as Lightning asks for it."""
    sampler, found = EpochSampler(LABELS, draw, **{"seed": 0, **settings}), []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


def test_shuffled_is_every_image_once_in_another_order_each_epoch():
    first, second = orders([0, 1])
    assert sorted(first) == sorted(second) == list(range(1001))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize("draw", ["shuffle", "balanced"])
def test_the_order_of_an_epoch_does_not_depend_on_the_epochs_before(draw):
    assert orders([0, 1, 2, 3], draw)[3] == orders([3], draw)[0]
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 (what another library may have done)
    assert orders([3], draw)[0] == orders([3], draw)[0]


def test_no_seed_has_the_orders_of_another():
    # Counting on from the seed, as DistributedSampler does, epoch 1 of seed 0 would be epoch 0 of seed 1.
    assert orders([1], seed=0) != orders([0], seed=1)


def test_balanced_draws_every_class_and_every_image_of_a_class_alike():
    drawn = np.concatenate(orders(range(60), "balanced"))
    assert len(drawn) == 60 * 1001
    counts = np.bincount(LABELS.numpy()[drawn])
    assert counts / len(drawn) == pytest.approx([1 / 3] * 3, abs=0.01)
    of_last = np.bincount(drawn, minlength=1001)[900:]  # about 198 draws of each
    assert of_last.min() > 130
    assert of_last.max() < 270


@pytest.mark.parametrize("draw", ["shuffle", "balanced"])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_an_epoch_equally(processes, draw):
    shares = [orders([4], draw, processes=processes, rank=rank)[0] for rank in range(processes)]
    each = 1001 // processes
    assert {len(share) for share in shares} == {each} == {len(EpochSampler(LABELS, draw, 0, processes, 0))}
    (whole,) = orders([4], draw)
    assert [index for turn in zip(*shares, strict=True) for index in turn] == whole[: processes * each]


def test_what_is_left_over_after_sharing_is_another_image_each_epoch():
    halves = [orders(range(4), processes=2, rank=rank) for rank in (0, 1)]
    missing = [set(range(1001)) - set(one) - set(other) for one, other in zip(*halves, strict=True)]
    assert all(len(left) == 1 for left in missing)
    assert len(set().union(*missing)) > 1


@pytest.mark.parametrize("processes", [2, 4])
def test_a_process_has_two_images_at_least(processes):
    with pytest.raises(CxrnetError, match=rf"trainer.devices: 3 training images can't be shared by {processes} proc"):
        EpochSampler(torch.tensor([0, 1, 2]), "shuffle", 0, processes, 0)
    assert len(EpochSampler(torch.tensor([0, 1, 2, 3]), "shuffle", 0, 2, 1)) == 2
    assert len(EpochSampler(torch.tensor([0]), "shuffle", 0)) == 1


class Recorder(pl.LightningModule):
    """Writes down the order of the images in every epoch, by their sums."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = {}

    def training_step(self, batch):
        sums = batch.get("image", batch.get("features")).flatten(1).float().sum(dim=1)
        self.seen.setdefault(self.current_epoch, []).extend(sums.tolist())
        return self.layer(torch.zeros(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, epochs: int, resume: str | None = None) -> Recorder:
    recorder, last = Recorder(), ModelCheckpoint(folder, "last", enable_version_counter=False)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False, callbacks=[last],
    )  # fmt: skip
    trainer.fit(recorder, datamodule=data, ckpt_path=resume, weights_only=False)
    return recorder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["images", "features", "workers"])
def test_lightning_tells_our_loaders_the_epoch_also_after_a_resume(make_data, make_network, tmp_path, kind):
    from cxrnet.models.freezing import set_trainable
    from cxrnet.models.trunk import split_network
    from cxrnet.training.features import FeatureDataModule

    def data():
        images = make_data(sampler="balanced", num_workers=2 if kind == "workers" else 0)
        if kind != "features":
            return images
        network = make_network()
        set_trainable(network, "head")
        return FeatureDataModule(images, split_network(network), 1, 0)

    straight = fit(data(), tmp_path, 4).seen
    assert len(straight) == 4
    assert straight[0] != straight[1]
    fit(data(), tmp_path, 2)
    resumed = fit(data(), tmp_path, 4, str(tmp_path / "last.ckpt")).seen
    assert resumed == {epoch: straight[epoch] for epoch in (2, 3)}
