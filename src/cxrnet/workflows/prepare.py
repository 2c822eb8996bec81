"""Make a data set ready and look at it before anything is trained on it: the order of the steps.

data -> manifest -> distribution, sizes, sheets -> duplicates and known issues
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
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
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import conflict_statement, leak_statement, patients_text, write_conflicts
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
from cxrnet.reporting.training_run import issues_of, sources_of
from cxrnet.workflows.build import make_data


@dataclass(frozen=True)
class Findings:
    """Findings on a data set.

    Attributes:
        notes: what was said while it was read, such as why rows are left out.
        warnings: what was found to be wrong.
        issues: what is documented to be wrong.
        distribution: images and patients by class and split.
        sizes: of the images.
        duplicates: from :func:`marked_duplicates`.
    """

    notes: Sequence[str]
    warnings: Sequence[str]
    issues: Sequence[str]
    distribution: pd.DataFrame
    sizes: pd.DataFrame
    duplicates: pd.DataFrame


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
    console.heading("Data")
    with console.heard(notes=True) as notes:
        data = make_data(plain["data"])
    findings = _findings(data, notes)
    _say(data, findings)
    _write(data, findings, folder)
    with get_console().status("drawing"):
        _draw(data, findings, plain, folder)
    say_places(_places(folder))
    if data.augment is None:
        console.say("note", "augment=none: there is nothing to show on augmented.png")
    _say_training(plain["data"], folder)


def marked_duplicates(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Mark where the two images of each pair of duplicates stand, and whether they contradict each other.

    Args:
        pairs: from :func:`cxrnet.data.duplicates.search.find_duplicates`.
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


def _findings(data: XrayDataModule, notes: Sequence[str]) -> Findings:
    duplicates = marked_duplicates(data.duplicates, data.manifest)
    warnings = leak_statement(data.manifest) + conflict_statement(data.duplicates, data.manifest)
    if differ := int(duplicates["patient_id_differs"].sum()):
        warnings.append(
            f"{differ} of {len(duplicates)} pairs of duplicates stand under two patients, see duplicates.csv"
        )
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were taken (data.limit)")
    return Findings(
        notes,
        warnings,
        issues_of(data.known_issues),
        class_distribution(data.manifest, data.classes),
        image_sizes(data.manifest),
        duplicates,
    )


def _say(data: XrayDataModule, findings: Findings) -> None:
    pairs, distribution = findings.duplicates, findings.distribution
    console.say("images", f"{len(data.manifest)} from {sources_of(data)}")
    console.say("patients", patients_text(data.manifest))
    console.say("duplicates", f"{len(pairs)} pairs, {(pairs['kind'] == 'exact').sum()} of them the same file")
    for text in findings.warnings:
        console.warn(text)
    for text in findings.issues or ["none is documented for these data"]:
        console.say("known issue", text)
    console.heading("Images (patients)")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    table.add_column()
    for split in (*distribution["split"].unique(), "all"):
        table.add_column(split, justify="right")
    for name, part in distribution.groupby("class", sort=False):
        counts = zip(part["images"], part["patients"], strict=True)
        cells = [str(images) if pd.isna(patients) else f"{images} ({patients})" for images, patients in counts]
        table.add_row(str(name), *cells, str(part["images"].sum()))
    console.show(table)


def _write(data: XrayDataModule, findings: Findings, folder: Path) -> None:
    write_table(findings.distribution, folder / "class_distribution.csv")
    write_table(findings.sizes, folder / "image_sizes.csv")
    write_table(findings.duplicates, folder / "duplicates.csv")
    notes = [*findings.notes, *findings.warnings, *findings.issues]
    write_table(pd.DataFrame({"note": notes}), folder / "notes.csv")
    write_manifest(data.manifest, folder / "manifest.csv")
    write_manifest(data.manifest, folder / "manifest.parquet")
    write_conflicts(data.duplicates, data.manifest, folder)


def _draw(data: XrayDataModule, findings: Findings, config: Config, folder: Path) -> None:
    train, sheet = data.rows("train"), config["sheet"]
    save(distribution_chart(findings.distribution), folder / "class_distribution.png")
    save(sizes_chart(findings.sizes, data.classes), folder / "image_sizes.png")
    save(samples_sheet(train, data.classes, sheet["per_class"]), folder / "samples.png")
    if data.augment is not None:
        torch.manual_seed(config["seed"])
        rows, views = sheet["augmented"], sheet["views"]
        plot = augmented_sheet(data.images, train, data.classes, data.augment, rows, views)
        save(plot, folder / "augmented.png")


def _places(folder: Path) -> dict[str, str]:
    return {
        "manifest": str(shown(folder) / "manifest.parquet"),
        "plots": ", ".join(sorted(path.name for path in folder.glob("*.png"))),
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
    """Write text in Hydra's quotation marks, in which a class called 1 or null stays text."""
    return json.dumps(value, ensure_ascii=False)
