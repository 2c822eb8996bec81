import logging
import pickle
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from cxrnet.data.augment import geometric
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.duplicates import pairs
from cxrnet.data.images.store import load_images
from cxrnet.data.loading import EpochSampler, OrderedSampler, Share
from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.folder import folder
from cxrnet.data.splits import split_manifest
from cxrnet.errors import CxrnetError

CLASSES = ("Covid", "Normal", "Viral Pneumonia")
AUGMENT = geometric(flip=0, degrees=10, translate=0.1, shear=0, zoom=0.1, distortion=0)


def batches(data) -> list[dict[str, torch.Tensor]]:
    return list(data.train_dataloader())


def agree(data, size=(32, 32)) -> None:
    """Every image stands beside its own label."""
    for split in ("train", "val", "test"):
        images, labels = data.arrays(split)
        _, expected = load_images(data.rows(split).reset_index(drop=True), size, "stretch", "fail")
        assert np.array_equal(images, expected)
        assert [data.classes[label] for label in labels] == data.rows(split)["label"].tolist()


def test_data_that_cannot_be_split_are_read_and_say_why_they_cannot(draw, tmp_path):
    root = draw(tmp_path / "one", classes=("Covid",), images=3)
    data = XrayDataModule(partial(folder, root), partial(split_manifest, fractions={"train": 1.0}, seed=0), (32, 32))
    data.read()
    assert (data.classes, len(data.images), len(data.small)) == (("Covid",), 3, 3)
    assert data.manifest["split"].isna().all()
    assert data.manifest["sha256"].notna().all()
    with pytest.raises(CxrnetError, match="only one class"):
        data.setup()


def test_data_that_were_read_are_split_as_others_are(make_data, xrays):
    halves = partial(split_manifest, fractions={"train": 0.5, "val": 0.25, "test": 0.25}, seed=0)
    data = XrayDataModule(partial(folder, xrays), halves, (32, 32))
    data.read()
    images = data.images
    data.setup()
    assert data.images is images  # which are not decoded again
    pd.testing.assert_frame_equal(data.manifest, make_data().manifest)


def test_splits_and_counts(make_data):
    data = make_data()
    agree(data)
    assert data.classes == CLASSES
    assert [data.counts(split) for split in ("train", "val", "test")] == [[6] * 3, [3] * 3, [3] * 3]
    assert [len(data.rows(split)) for split in ("train", "val", "test")] == [18, 9, 9]
    assert data.manifest["sha256"].notna().all()


@pytest.mark.parametrize(
    ("choose", "changes", "images"),
    [
        (lambda manifest: manifest.iloc[::-1], {}, 36),
        # What a notebook does: manifest[manifest["view"] == "PA"] keeps the index of the whole.
        (lambda manifest: manifest[manifest["image_id"].str.contains("[13579].png")], {}, 18),
        (lambda manifest: manifest, {"classes": ["Viral Pneumonia", "Covid", "Normal"]}, 36),
        (lambda manifest: manifest, {"limit": 2}, 18),
    ],
    ids=["reversed", "part", "order of classes", "limit"],
)
def test_images_and_labels_stay_together(make_data, xrays, choose, changes, images):
    data = make_data(manifest=choose(folder(xrays)), **changes)
    agree(data)
    assert len(data.manifest) == images
    assert data.classes == tuple(changes.get("classes", CLASSES))


@pytest.mark.parametrize(
    "classes", [["Covid", "Normal"], ["Covid", "Normal", "Pneumonia"], [*CLASSES, "Other"], [*CLASSES, "Covid"]]
)
def test_classes_that_do_not_name_the_labels(make_data, classes):
    with pytest.raises(
        CxrnetError, match=r"data.classes: .* doesn't name the labels of the data, which are \['Covid', "
    ):
        make_data(classes=classes)


def published(xrays, split_of):
    manifest = folder(xrays)
    return manifest.assign(split=manifest.apply(split_of, axis=1).astype("string"))


@pytest.mark.parametrize(
    ("split_of", "message"),
    [
        (
            lambda row: "val" if row["label"] == "Normal" or "01" in row["image_id"] else "train",
            "data: class 'Normal' has no training image; change data.split or data.classes",
        ),
        (lambda row: "train", "data: no validation images; give data.split a validation part"),
    ],
)
def test_splits_that_can_not_be_trained_on(make_data, xrays, split_of, message):
    with pytest.raises(CxrnetError, match=message):
        make_data(manifest=published(xrays, split_of), split=lambda table: table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "data.limit: 0 is out of range"),
        ({"limit": -1}, "data.limit: -1"),
        ({"batch_size": 2.5}, "data.batch_size: 2.5 is of another type"),
        ({"size": [64]}, r"data.size: \[64\] .* of 2"),
        ({"size": [0, 64]}, r"data.size: \[0, 64\]"),
        ({"sampler": "balancd"}, "data.sampler: 'balancd' is not known; use shuffle or balanced"),
        ({"resize": "squeeze"}, "data.resize: 'squeeze' is not known; use stretch or pad or crop"),
        ({"on_error": "ignore"}, "data.on_error: 'ignore' is not known; use fail or skip"),
        ({"num_workers": -1}, "data.num_workers: -1"),
        ({"manifest": partial(folder)}, "data.manifest.root: no value is set; give data.manifest.root=<value>"),
        ({"manifest": partial(folder, root="a", x=3)}, "data.manifest.x: no such key; folder takes root"),
        ({"split": partial(split_manifest, seed=0)}, "data.split.fractions: no value is set"),
        ({"split": partial(split_manifest, fractions={}, seed=0, x=3)}, "data.split.x: .* takes fractions, seed"),
        ({"augment": 3}, "augment: 3 can't augment a batch"),
        ({"augment": lambda images: images.float()}, r"augment: .* makes \(2, 1, 32, 32\) torch.float32 of a batch"),
    ],
)
def test_bad_settings(make_data, changes, message):
    with pytest.raises(CxrnetError, match=message):
        make_data(**changes)


class Watching(pl.LightningModule):
    """Keeps the batches that reach a model."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_batches, self.val_batches = [], []

    def training_step(self, batch):
        self.train_batches.append(batch)
        return self.weight * 0

    def validation_step(self, batch):
        self.val_batches.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def watch(data, epochs: int = 1) -> Watching:
    """Collect the batches that a model sees while it is trained."""
    watching, quiet = Watching(), {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options = {**quiet, "enable_model_summary": False, "accelerator": "cpu", "max_epochs": epochs}
    pl.Trainer(**options, num_sanity_val_steps=0).fit(watching, datamodule=data)
    return watching


def test_augmentation_is_for_training_only(make_data):
    plain, augmented = watch(make_data()), watch(make_data(augment=AUGMENT))
    for one, other in zip(augmented.val_batches, plain.val_batches, strict=True):
        assert torch.equal(one["image"], other["image"])
    for one, other in zip(augmented.train_batches, plain.train_batches, strict=True):
        assert torch.equal(one["label"], other["label"])
        assert not any(torch.equal(a, b) for a, b in zip(one["image"], other["image"], strict=True))


def test_images_on_disk_are_trained_on_like_those_in_memory(make_data, tmp_path):
    for _ in range(2):  # made, then found
        on_disk = make_data(cache=tmp_path, limit=5)
        assert isinstance(on_disk.images.array, np.memmap)
        for one, other in zip(batches(on_disk), batches(make_data(limit=5)), strict=True):
            assert torch.equal(one["image"], other["image"])
            assert torch.equal(one["label"], other["label"])


def test_validation_is_in_the_order_of_the_rows_and_whole(make_data):
    data = make_data(batch_size=2, size=(40, 24))
    found = list(data.val_dataloader())
    assert found[0]["image"].shape == (2, 1, 40, 24)
    assert (found[0]["image"].dtype, found[0]["label"].dtype) == (torch.uint8, torch.int64)
    images, labels = data.arrays("val")
    assert torch.equal(torch.cat([batch["label"] for batch in found]), labels)
    assert np.array_equal(torch.cat([batch["image"] for batch in found])[:, 0], images[:])


def test_the_order_is_that_of_the_sampler_with_the_seed_of_the_data(make_data):
    for seed, draw in ((0, "shuffle"), (1, "shuffle"), (1, "balanced")):
        data = make_data(seed=seed, sampler=draw)
        loader = data.train_dataloader()
        images, labels = data.arrays("train")
        loader.sampler.set_epoch(3)  # as Lightning does
        expected = EpochSampler(labels, draw, seed, 8)
        expected.set_epoch(3)
        order = [index for share in expected for index in share.indices]
        assert np.array_equal(torch.cat([batch["image"] for batch in loader])[:, 0], images[order])


@pytest.mark.parametrize(("batch_size", "sizes"), [(17, [17]), (8, [8, 8, 2]), (18, [18]), (32, [18]), (1, [1] * 18)])
def test_a_last_batch_of_one_image_is_dropped(make_data, batch_size, sizes):
    assert [len(batch["label"]) for batch in batches(make_data(batch_size=batch_size))] == sizes


def test_a_worker_gets_neither_images_nor_manifest_only_where_they_lie(make_data, draw, tmp_path):
    root = draw(tmp_path / ("a long path " * 20), images=200)
    data = make_data(manifest=partial(folder, root), size=(8, 8), cache=tmp_path / "cache")
    dataset = data.train_dataloader().dataset
    sent = pickle.dumps(dataset)  # as a process that is spawned gets it
    assert len(dataset) == 300
    assert len(sent) < 32 * 300  # a path has over 240 bytes, an image 64
    received = pickle.loads(sent)[Share([7, 0, 299], slice(0, None, 1), 3)]
    _, expected = load_images(data.rows("train").reset_index(drop=True), (8, 8), "stretch", "fail")
    assert np.array_equal(received["image"][:, 0], expected[[7, 0, 299]])
    assert [CLASSES[label] for label in received["label"]] == data.rows("train")["label"].iloc[[7, 0, 299]].tolist()


def test_unreadable_images_fail_or_are_counted(make_data, draw, tmp_path, caplog):
    root = draw(tmp_path / "set")
    (root / "Covid" / "00.png").write_bytes(b"")
    (root / "Normal" / "03.png").write_text("no image")
    with pytest.raises(CxrnetError, match="2 of 36 files give no image"):
        make_data(manifest=partial(folder, root))
    with caplog.at_level(logging.WARNING):
        data = make_data(manifest=partial(folder, root), on_error="skip")
    assert data.left_out == 2
    assert [note.split(" (")[0] for note in data.notes] == ["left out: 2 of 36 files give no image"]
    assert len(data.manifest) == 34
    assert "2 of 36" in caplog.text
    agree(data)


def test_duplicates_never_part(make_data, draw, tmp_path):
    root = draw(tmp_path / "set")
    for i in range(6):  # each under a new name, and every second one recompressed
        image = Image.open(root / "Covid" / f"{i:02d}.png")
        image.save(root / "Covid" / (f"copy{i}.jpg" if i % 2 else f"copy{i}.png"), quality=90)
    for seed in range(4):
        halves = {"train": 0.5, "val": 0.25, "test": 0.25}
        data = make_data(manifest=partial(folder, root), split=partial(split_manifest, fractions=halves, seed=seed))
        split = dict(zip(data.manifest["image_id"], data.manifest["split"], strict=True))
        for i in range(6):
            assert split[f"Covid/{i:02d}.png"] == split[f"Covid/copy{i}.{'jpg' if i % 2 else 'png'}"]


def test_duplicates_are_searched_once_for_all_sizes_of_the_model(make_data, draw, tmp_path, monkeypatch):
    root, cache = draw(tmp_path / "set"), tmp_path / "cache"
    (root / "Covid" / "00.png").write_bytes(b"")  # left out: the places of the others move
    for i in range(1, 4):
        Image.open(root / "Covid" / f"{i:02d}.png").save(root / "Covid" / f"copy{i}.png")
    read = partial(folder, root)
    first = make_data(manifest=read, on_error="skip", cache=cache)
    assert len(first.duplicates) == 3
    monkeypatch.setattr(pairs, "search", lambda *_: pytest.fail("searched again"))
    again = make_data(manifest=read, on_error="skip", cache=cache, size=(48, 24))
    assert again.duplicates.equals(first.duplicates)
    assert again.manifest.equals(first.manifest)


def test_a_manifest_of_ones_own_is_read_once(make_data, xrays):
    calls = []

    def read():
        calls.append(1)
        rows = folder(xrays)[["image_id", "path", "label"]].assign(source="mine", age=40)
        return make_manifest(rows, "mine")

    data = make_data(manifest=read)
    data.setup("fit")
    data.setup("validate")
    assert len(calls) == 1
    assert data.rows("val")["age"].eq(40).all()


def test_split_and_duplicates_do_not_depend_on_the_size_of_the_model(make_data):
    columns = ["image_id", "split", "group_id"]
    before = make_data().manifest[columns]
    for size, rule in (((8, 8), "stretch"), ((48, 24), "pad"), ((96, 96), "crop")):
        assert make_data(size=size, resize=rule).manifest[columns].equals(before)


def test_what_was_left_out_and_what_looks_like_a_mask_is_kept_for_the_report(make_data, draw, tmp_path):
    root = draw(tmp_path / "set", images=12)
    (root / "notes.txt").write_text("a")
    mask = np.hypot(*np.mgrid[-24:24, -24:24]) < 15
    Image.fromarray(mask.astype(np.uint8) * 255).save(root / "Covid" / "odd.png")
    deep = np.random.default_rng(0).integers(0, 4096, (48, 40)).astype(np.uint16)
    deep[3, 3] = 65535
    Image.fromarray(deep).save(root / "Normal" / "hot.png")
    for _ in range(2):  # read, then found in the cache
        left_out, clipped, odd = make_data(manifest=partial(folder, root), cache=tmp_path / "cache").notes
        assert left_out == f"'{root}': left out: 1 .txt"
        assert clipped.startswith("clipped outliers (hot pixels")
        assert clipped.endswith(": Normal/hot.png")
        assert odd == "1 of 38 images has two grey levels or one, as masks and blank pictures do: Covid/odd.png"


LABELS = torch.tensor([0] * 700 + [1] * 200 + [2] * 101)


def orders(epochs, draw="shuffle", **settings) -> list[list[int]]:
    """The order of each epoch, as Lightning asks for it."""
    sampler, found = EpochSampler(LABELS, draw, **{"seed": 0, "batch_size": 9, **settings}), []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found.append([index for share in sampler for index in share.indices])
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
@pytest.mark.parametrize(("processes", "batch_size", "last"), [(2, 8, 9), (3, 3, 2), (4, 2, 0)])
def test_processes_share_the_batches_that_one_would_have(processes, batch_size, last, draw):
    def shares(batch_size, *place) -> list[Share]:
        sampler = EpochSampler(LABELS, draw, 0, batch_size, *place)
        sampler.set_epoch(4)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    whole = shares(batch_size * processes)
    parts = zip(*(shares(batch_size, processes, rank) for rank in range(processes)), strict=True)
    for batch, part in zip(whole, parts, strict=True):
        assert {share.total for share in part} == {len(batch.indices)}
        for rank, share in enumerate(part):
            assert share.indices == batch.indices[rank::processes]
            assert range(len(batch.indices))[share.places] == range(len(batch.indices))[rank::processes]
    assert len(whole[-1].indices) == (last or 8)  # of 1001: 62 batches of 16, 111 of 9, 125 of 8 and one alone


def test_images_in_order_are_shared_each_once():
    shares = [list(OrderedSampler(7, 1, 3, rank)) for rank in range(3)]
    assert [[share.indices for share in each] for each in shares] == [[[0], [3], [6]], [[1], [4], []], [[2], [5], []]]
    assert [share.total for share in shares[1]] == [3, 3, 1]


@pytest.mark.parametrize("processes", [2, 4])
def test_a_process_has_two_images_at_least(processes):
    with pytest.raises(CxrnetError, match=rf"trainer.devices: 3 training images can't be shared by {processes} proc"):
        EpochSampler(torch.tensor([0, 1, 2]), "shuffle", 0, 8, processes, 0)
    assert len(EpochSampler(torch.tensor([0, 1, 2, 3]), "shuffle", 0, 8, 2, 1)) == 1
    assert len(EpochSampler(torch.tensor([0]), "shuffle", 0, 8)) == 1


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
@pytest.mark.parametrize("kind", ["features", "workers"])
def test_lightning_tells_our_loaders_the_epoch_also_after_a_resume(make_data, make_network, tmp_path, kind):
    from cxrnet.models.freezing import set_trainable, split_network
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
