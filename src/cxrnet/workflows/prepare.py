"""Make a data set ready and look at it before anything is trained on it.

data -> manifest -> duplicates, acquisition, labels -> verdict -> plots, page, fixed manifest
"""

import json
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
from cxrnet.core.machine import package_versions
from cxrnet.core.schema import build
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.duplicates import KINDS
from cxrnet.data.fixes import fix_manifest, fixed_manifest
from cxrnet.data.leaks import leak_statement, marked_duplicates, patients_text, write_conflicts
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.data.settings import Fix
from cxrnet.data.shards.reading import root_of
from cxrnet.errors import CxrnetError
from cxrnet.reporting.data_report import DataPage, render_data_report
from cxrnet.reporting.data_verdict import Checks, Verdict, judge
from cxrnet.reporting.plots.dataset import (
    augmented_sheet,
    class_distribution,
    distribution_chart,
    image_sizes,
    samples_sheet,
    sizes_chart,
)
from cxrnet.reporting.plots.style import save
from cxrnet.reporting.training_run import sources_of
from cxrnet.reporting.wording import command_text, issues_of
from cxrnet.training.frozen import weights_at_hand
from cxrnet.workflows.build import unset_data
from cxrnet.workflows.data_checks import check_data


def prepare(config: DictConfig, folder: Path, command: Sequence[str] = ()) -> None:
    """Read and split a data set, and write down what there is to know of it.

    Data that can't be split or trained on are looked at all the same; why is the first thing that is said of them.

    Raises:
        CxrnetError: a mistake in the configuration or the data, or a folder that holds a data set already.
    """
    refuse_used(folder, "manifest.parquet", "a data set")
    plain = plain_config(config)
    weights, fix = weights_at_hand(plain["weights"]), build(Fix, plain["fix"], "fix")
    console.log_to(folder)
    console.heading("Data")
    with console.heard(notes=True) as notes:
        data = unset_data(plain["data"])
        data.read()
        unusable = _split(data)
    if fix.asked and unusable:
        raise CxrnetError(f"fix: the data can't be split, so there is nothing to mend ({unusable})")
    pairs = marked_duplicates(data.duplicates, data.manifest)
    distribution = class_distribution(data.manifest, data.classes)
    _say_data(data, pairs)
    console.heading("Images (patients)")
    console.show(_counts(distribution))
    checks = check_data(data, pairs, weights, unusable)
    verdict = judge(data.manifest, checks)
    _say_verdict(verdict)
    issues = issues_of(data.known_issues)
    _write_tables(folder, data, checks, [*notes, *verdict.findings, *verdict.gaps, *issues])
    fixes = fix_manifest(data.manifest, data.duplicates, checks.decoys, fix) if fix.asked else None
    if fixes is not None:
        _write_fixes(folder, data, fixes)
    with get_console().status("drawing"):
        plots = _draw(folder, data, distribution, plain)
        page = DataPage(
            title=f"Chest X-rays of {sources_of(data)}",
            verdict=verdict,
            checks=checks,
            known_issues=issues,
            notes=notes,
            images=plain["report"]["images"],
            command=command_text(command),
            environment={"data digest": digest(data.manifest), "seed": str(plain["seed"]), **package_versions()},
            fixes=fixes,
            plots=plots,
        )
        render_data_report(page, data, folder / "data_report.html")
    _say_places(folder, data, plain)
    if not unusable:
        _say_training(plain["data"], shown(folder) / ("manifest_fixed.parquet" if fix.asked else "manifest.parquet"))


def _say_training(data: Config, manifest: Path) -> None:
    console.heading("To train with this very split")
    print(f"\n{_training(data, str(manifest))}")


def _split(data: XrayDataModule) -> str:
    """Split data that are read; say why they can't be, empty where they can."""
    try:
        data.setup()
    except CxrnetError as error:
        return str(error)
    return ""


def _say_verdict(verdict: Verdict) -> None:
    console.heading("Verdict")
    for text in verdict.findings:
        console.warn(text)
    for label, texts in (("not known", verdict.gaps), ("not found", verdict.clean)):
        for text in texts:
            console.say(label, text)


def _say_data(data: XrayDataModule, pairs: pd.DataFrame) -> None:
    console.say("images", f"{len(data.manifest)} from {sources_of(data)}")
    console.say("patients", patients_text(data.manifest))
    console.say("duplicates", _kinds(pairs))
    for text in issues_of(data.known_issues) or ["none is documented for these data"]:
        console.say("known issue", text)


def _write_tables(folder: Path, data: XrayDataModule, checks: Checks, notes: Sequence[str]) -> None:
    write_table(class_distribution(data.manifest, data.classes), folder / "class_distribution.csv")
    write_table(image_sizes(data.manifest), folder / "image_sizes.csv")
    write_table(checks.pairs, folder / "duplicates.csv")
    write_table(pd.DataFrame({"note": list(notes)}), folder / "notes.csv")
    for name in ("manifest.csv", "manifest.parquet"):
        write_manifest(data.manifest, folder / name)
    write_conflicts(data.duplicates, data.manifest, folder)
    if len(checks.labels.found):
        write_table(checks.labels.found, folder / "doubted_labels.csv")


def _write_fixes(folder: Path, data: XrayDataModule, fixes: pd.DataFrame) -> None:
    """Write the fixed manifest and the reason for every image, and say how many of them there are of what."""
    fixed = fixed_manifest(data.manifest, fixes)
    for name in ("manifest_fixed.csv", "manifest_fixed.parquet"):
        write_manifest(fixed, folder / name)
    write_table(fixes, folder / "fixes.csv")
    console.heading("Fixes")
    for action, n in fixes["action"].value_counts().items():
        console.say(str(action), f"{n} of {len(fixes)} images")
    left = leak_statement(fixed)
    console.say("then", f"{len(fixed)} images; {'; '.join(left) if left else 'nothing leaks'}")


def _draw(folder: Path, data: XrayDataModule, distribution: pd.DataFrame, plain: Config) -> dict[str, Path]:
    """Draw the plots and, where pictures are asked for, the sheets; return the plots by name."""
    plots = {"image_sizes": save(sizes_chart(image_sizes(data.manifest), data.classes), folder / "image_sizes.png")}
    if len(distribution):
        plots["class_distribution"] = save(distribution_chart(distribution), folder / "class_distribution.png")
    train, sheet = data.rows("train"), plain["sheet"]
    rows = train if len(train) and set(train["label"]) == set(data.classes) else data.manifest
    if plain["report"]["images"] == 0:
        return plots
    sharded = data.images if root_of(rows["path"]) is not None else None
    save(samples_sheet(rows, data.classes, sheet["per_class"], sharded), folder / "samples.png")
    if data.augment is not None:
        torch.manual_seed(plain["seed"])
        images, views = sheet["augmented"], sheet["views"]
        save(augmented_sheet(data.images, rows, data.classes, data.augment, images, views), folder / "augmented.png")
    return plots


def _say_places(folder: Path, data: XrayDataModule, plain: Config) -> None:
    found = {"page": str(shown(folder) / "data_report.html"), "manifest": str(shown(folder) / "manifest.parquet")}
    if (folder / "manifest_fixed.parquet").exists():
        found["fixed"] = str(shown(folder) / "manifest_fixed.parquet")
    plots = sorted(path.name for path in folder.glob("*.png"))
    say_places({**found, "plots": ", ".join(plots), "everything": str(shown(folder))})
    if plain["report"]["images"] == 0:
        console.say("note", "report.images=0: no picture of an X-ray was written")
    elif data.augment is None:
        console.say("note", "augment=none: there is nothing to show on augmented.png")


def _kinds(pairs: pd.DataFrame) -> str:
    """Say how many pairs of duplicates there are of each kind."""
    counts = pairs["kind"].value_counts()
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if kind in counts)
    return f"{len(pairs)} pairs{f' ({kinds})' if kinds else ''}"


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
