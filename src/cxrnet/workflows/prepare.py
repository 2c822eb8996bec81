"""Make a data set ready and look at it before anything is trained on it.

data -> manifest -> distribution, sizes, sheets -> duplicates and known issues
"""

import json
import re
import shlex
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
from cxrnet.data.duplicates import KINDS
from cxrnet.data.leaks import conflict_statement, leak_statement, patients_text, write_conflicts
from cxrnet.data.manifest import write_manifest
from cxrnet.data.shards.reading import root_of
from cxrnet.reporting.plots.dataset import (
    augmented_sheet,
    class_distribution,
    distribution_chart,
    image_sizes,
    samples_sheet,
    sizes_chart,
)
from cxrnet.reporting.plots.style import save
from cxrnet.reporting.training_run import issues_of, sources_of
from cxrnet.workflows.build import make_data


def prepare(config: DictConfig, folder: Path) -> None:
    """Read and split a data set, and write down what there is to know of it.

    Raises:
        CxrnetError: a mistake in the configuration or the data, or a folder that holds a data set already.
    """
    refuse_used(folder, "manifest.parquet", "a data set")
    plain = plain_config(config)
    console.log_to(folder)
    console.heading("Data")
    with console.heard(notes=True) as notes:
        data = make_data(plain["data"])

    pairs = marked_duplicates(data.duplicates, data.manifest)
    warnings = leak_statement(data.manifest) + conflict_statement(data.duplicates, data.manifest)
    if differ := int(pairs["patient_id_differs"].sum()):
        warnings.append(f"{differ} of {len(pairs)} pairs of duplicates stand under two patients, see duplicates.csv")
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were taken (data.limit)")
    issues = issues_of(data.known_issues)
    distribution, sizes = class_distribution(data.manifest, data.classes), image_sizes(data.manifest)

    console.say("images", f"{len(data.manifest)} from {sources_of(data)}")
    console.say("patients", patients_text(data.manifest))
    console.say("duplicates", _kinds(pairs))
    for text in warnings:
        console.warn(text)
    for text in issues or ["none is documented for these data"]:
        console.say("known issue", text)
    console.heading("Images (patients)")
    console.show(_counts(distribution))

    write_table(distribution, folder / "class_distribution.csv")
    write_table(sizes, folder / "image_sizes.csv")
    write_table(pairs, folder / "duplicates.csv")
    write_table(pd.DataFrame({"note": [*notes, *warnings, *issues]}), folder / "notes.csv")
    for name in ("manifest.csv", "manifest.parquet"):
        write_manifest(data.manifest, folder / name)
    write_conflicts(data.duplicates, data.manifest, folder)
    with get_console().status("drawing"):
        train, sheet = data.rows("train"), plain["sheet"]
        sharded = data.images if root_of(train["path"]) is not None else None
        save(distribution_chart(distribution), folder / "class_distribution.png")
        save(sizes_chart(sizes, data.classes), folder / "image_sizes.png")
        save(samples_sheet(train, data.classes, sheet["per_class"], sharded), folder / "samples.png")
        if data.augment is not None:
            torch.manual_seed(plain["seed"])
            rows, views = sheet["augmented"], sheet["views"]
            plot = augmented_sheet(data.images, train, data.classes, data.augment, rows, views)
            save(plot, folder / "augmented.png")

    manifest, plots = str(shown(folder) / "manifest.parquet"), sorted(path.name for path in folder.glob("*.png"))
    say_places({"manifest": manifest, "plots": ", ".join(plots), "everything": str(shown(folder))})
    if data.augment is None:
        console.say("note", "augment=none: there is nothing to show on augmented.png")
    console.heading("To train with this very split")
    print(f"\n{_training(plain['data'], manifest)}")


def _kinds(pairs: pd.DataFrame) -> str:
    """Say how many pairs of duplicates there are of each kind."""
    counts = pairs["kind"].value_counts()
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)
    return f"{len(pairs)} pairs{f' ({kinds})' if kinds else ''}"


def marked_duplicates(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Mark where the two images of each pair of duplicates stand, and whether they contradict each other.

    Args:
        pairs: from :func:`cxrnet.data.duplicates.find_duplicates`.
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


def _counts(distribution: pd.DataFrame) -> Table:
    """Arrange images and patients by class (row) and split (column)."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    table.add_column()
    for split in (*distribution["split"].unique(), "all"):
        table.add_column(split, justify="right")
    for name, part in distribution.groupby("class", sort=False):
        counts = zip(part["images"], part["patients"], strict=True)
        cells = [str(images) if pd.isna(patients) else f"{images} ({patients})" for images, patients in counts]
        table.add_row(str(name), *cells, str(part["images"].sum()))
    return table


def _training(config: Config, manifest: str) -> str:
    """Write the command that trains on a manifest that was prepared from a configuration's ``data``."""

    def quoted(value: str) -> str:  # in Hydra's quotation marks, in which a class called 1 or null stays text
        return json.dumps(value, ensure_ascii=False)

    root = manifest if re.fullmatch(r"[\w./-]+", manifest) else quoted(manifest)
    height, width = config["size"]
    words = [f"data.root={root}", f"data.size=[{height},{width}]", f"data.resize={config['resize']}"]
    if config["classes"]:  # the manifest doesn't hold their order
        words.append(f"data.classes=[{','.join(map(quoted, config['classes']))}]")
    return shlex.join(["python", "-m", "cxrnet.train", "data=manifest", *words])
