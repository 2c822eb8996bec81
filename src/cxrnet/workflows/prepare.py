"""A data set made ready and looked at before anything is trained on it: the order of the steps.

data -> manifest -> distribution, sizes, sheets -> copies and what else is known to be wrong
"""

import json
import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from rich import get_console
from rich.table import Table

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.atomic import write_table
from cxrnet.core.config import Config, plain_config
from cxrnet.data.conflicts import conflict_statement, write_conflicts
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import leak_statement, patients_text
from cxrnet.data.manifest import write_manifest
from cxrnet.reporting.plots.dataset import (
    augmented_sheet,
    class_distribution,
    distribution_chart,
    image_sizes,
    samples_sheet,
    sizes_chart,
)
from cxrnet.reporting.plots.style import save
from cxrnet.workflows.build import make_data
from cxrnet.workflows.describe import faults_of, sources_of


def prepare(config: DictConfig, folder: Path) -> None:
    """Read and split a data set, and write down what there is to know of it.

    Args:
        config: as composed from ``conf/prepare.yaml``.
        folder: where everything is written; refused if it holds a data set already.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    refuse_used(folder, "manifest.parquet", "a data set")
    plain = plain_config(config)
    console.log_to(folder)
    data, notes = _read(plain["data"])
    copies = marked_copies(data.copies, data.manifest)
    distribution, sizes = class_distribution(data.manifest, data.classes), image_sizes(data.manifest)
    warnings, faults = _warnings(data, copies), faults_of(data.known_faults)
    _say(data, distribution, copies, warnings, faults)
    for name, table in {"class_distribution": distribution, "image_sizes": sizes, "copies": copies}.items():
        write_table(table, folder / f"{name}.csv")
    write_table(pd.DataFrame({"note": [*notes, *warnings, *faults]}), folder / "notes.csv")
    with get_console().status("drawing"):
        _draw(data, distribution, sizes, plain, folder)
    write_manifest(data.manifest, folder / "manifest.csv")
    write_manifest(data.manifest, folder / "manifest.parquet")
    write_conflicts(data.copies, data.manifest, folder)
    say_places(_places(folder))
    if data.augment is None:
        console.say("note", "augment=none: there is nothing to show on augmented.png")
    _say_training(plain["data"], folder)


def marked_copies(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Say of each pair of copies where the two stand, and whether they contradict each other.

    Args:
        pairs: from :func:`cxrnet.data.duplicates.search.find_copies`.
        manifest: split; pairs of which it lacks an image are left out.

    Returns:
        The pairs with ``split_a``, ``split_b`` of the manifest, ``patient_id_a``, ``patient_id_b``, and whether both
        are known and differ: ``label_differs``, ``split_differs``, ``patient_id_differs``. Such pairs come first.
    """
    rows = manifest.set_index("image_id")
    pairs = pairs[pairs["image_id_a"].isin(rows.index) & pairs["image_id_b"].isin(rows.index)].copy()
    for side in "ab":
        for column in ("split", "patient_id"):
            pairs[f"{column}_{side}"] = rows.loc[pairs[f"image_id_{side}"], column].array
    differ = [f"{column}_differs" for column in ("label", "split", "patient_id")]
    for column in differ:
        first, second = (pairs[column.replace("differs", side)] for side in "ab")
        pairs[column] = (first != second).fillna(False).astype(bool)
    return pairs.sort_values(differ, ascending=False, kind="stable", ignore_index=True)


class _Listener(logging.Handler):
    """Keeps what cxrnet says while it reads, such as why rows are left out, and shows what is no warning too."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.notes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(record.getMessage())
        if record.levelno < logging.WARNING:
            console.say("note", self.notes[-1])


def _read(config: Config) -> tuple[XrayDataModule, list[str]]:
    console.heading("Data")
    logger, listener = logging.getLogger("cxrnet"), _Listener()
    logger.addHandler(listener)
    try:
        return make_data(config), listener.notes
    finally:
        logger.removeHandler(listener)


def _warnings(data: XrayDataModule, copies: pd.DataFrame) -> list[str]:
    warnings = leak_statement(data.manifest) + conflict_statement(data.copies, data.manifest)
    if differ := int(copies["patient_id_differs"].sum()):
        warnings.append(f"{differ} of {len(copies)} pairs of copies stand under two patients, see copies.csv")
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were taken (data.limit)")
    return warnings


def _say(
    data: XrayDataModule,
    distribution: pd.DataFrame,
    copies: pd.DataFrame,
    warnings: Sequence[str],
    faults: Sequence[str],
) -> None:
    console.say("images", f"{len(data.manifest)} from {sources_of(data)}")
    console.say("patients", patients_text(data.manifest))
    console.say("copies", f"{len(copies)} pairs, {(copies['kind'] == 'exact').sum()} of them the same file")
    for text in warnings:
        console.warn(text)
    for text in faults or ["none is documented for these data"]:
        console.say("known fault", text)
    console.heading("Images (patients)")
    console.show(_distribution_table(distribution))


def _distribution_table(distribution: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    table.add_column()
    for split in (*distribution["split"].unique(), "all"):
        table.add_column(split, justify="right")
    for name, part in distribution.groupby("class", sort=False):
        counts = zip(part["images"], part["patients"], strict=True)
        cells = [str(images) if pd.isna(patients) else f"{images} ({patients})" for images, patients in counts]
        table.add_row(str(name), *cells, str(part["images"].sum()))
    return table


def _draw(data: XrayDataModule, distribution: pd.DataFrame, sizes: pd.DataFrame, config: Config, folder: Path) -> None:
    train, sheet = data.rows("train"), config["sheet"]
    save(distribution_chart(distribution), folder / "class_distribution.png")
    save(sizes_chart(sizes, data.classes), folder / "image_sizes.png")
    save(samples_sheet(train, data.classes, sheet["per_class"]), folder / "samples.png")
    if data.augment is not None:
        torch.manual_seed(config["seed"])
        rows, views = sheet["augmented"], sheet["views"]
        figure = augmented_sheet(data.images, train, data.classes, data.augment, rows, views)
        save(figure, folder / "augmented.png")


def _places(folder: Path) -> dict[str, str]:
    return {
        "manifest": str(shown(folder) / "manifest.parquet"),
        "pictures": ", ".join(sorted(path.name for path in folder.glob("*.png"))),
        "everything": str(shown(folder)),
    }


def _say_training(config: Config, folder: Path) -> None:
    console.heading("To train with this very split")
    manifest = str(shown(folder) / "manifest.parquet")
    if not re.fullmatch(r"[\w./-]+", manifest):
        manifest = _quoted(manifest)
    overrides = ["data=manifest", f"data.root={manifest}"]
    overrides += [f"data.size=[{config['size'][0]},{config['size'][1]}]", f"data.resize={config['resize']}"]
    if config["classes"]:  # the manifest doesn't hold their order
        overrides.append(f"data.classes=[{','.join(map(_quoted, config['classes']))}]")
    print(f"\n{shlex.join(['python', '-m', 'cxrnet.train', *overrides])}")


def _quoted(value: str) -> str:
    """Text in Hydra's quotation marks, in which a class called 1 or null stays text."""
    return json.dumps(value, ensure_ascii=False)
