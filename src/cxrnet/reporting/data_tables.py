"""The tables of a data set: what there is of what, by class."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cxrnet.core.grouping import known_cells
from cxrnet.evaluation.metrics import Metric
from cxrnet.reporting.data_verdict import MEASUREMENTS, AcquisitionProbe, Checks
from cxrnet.reporting.plots.dataset import class_distribution, image_sizes
from cxrnet.reporting.rendering import Table
from cxrnet.reporting.tables import Row, metric_table
from cxrnet.reporting.wording import SPLIT_NAMES, grouped

_VALUES = 12  # of a column that a table names
_SIZES = 3  # of each class that a table names
_OFTEN = 5  # images of a patient from which on patients are counted together
NOT_KNOWN = "not known"


def split_table(manifest: pd.DataFrame, classes: Sequence[str]) -> Table:
    """Count images, and patients where they are known, by class and split."""
    counted = manifest.assign(split=manifest["split"].fillna("none"))
    counts = class_distribution(counted, classes) if manifest["split"].notna().all() else None
    rows = []
    for name in (*classes, "all"):
        part = counted if name == "all" else counted[counted["label"] == name]
        cells = [] if counts is None else [_images(row) for row in counts[counts["class"] == name].to_dict("records")]
        patients = part["patient_id"].nunique() if known_cells(part["patient_id"]).any() else None
        title = "All classes" if name == "all" else name
        rows.append([title, *cells, grouped(len(part)), NOT_KNOWN if patients is None else grouped(patients)])
    splits = [] if counts is None else [SPLIT_NAMES[split] for split in dict.fromkeys(counts["split"])]
    frame = pd.DataFrame(rows, columns=["Class", *splits, "Images", "Patients"])
    known = known_cells(manifest["patient_id"]).any()
    return Table("Images", frame, 1, False, "Below the images: patients." if splits and known else "")


def _images(row: dict[Any, Any]) -> str:
    images, patients = grouped(row["images"]), row["patients"]
    return images if pd.isna(patients) else f"{images}\n({grouped(patients)})"


def patients_table(manifest: pd.DataFrame) -> Table | None:
    """Count patients by the number of their images; ``None`` where no patient is known."""
    known = known_cells(manifest["patient_id"])
    if not known.any():
        return None
    each = manifest["patient_id"][known].value_counts()
    counts = each.clip(upper=_OFTEN).value_counts().sort_index()
    rows = [[f"{n}{' or more' * (n == _OFTEN)}", grouped(int(patients))] for n, patients in counts.items()]
    missing = int((~known).sum())
    note = f"Median {each.median():g}, at most {each.max()} images of a patient."
    note += f" Of {missing} images the patient is not known." if missing else ""
    return Table("Images of a patient", pd.DataFrame(rows, columns=["Images", "Patients"]), 1, False, note)


def value_table(values: pd.Series, labels: pd.Series, classes: Sequence[str], title: str) -> Table | None:
    """Count the values of a column by class; ``None`` where none is known."""
    if values.isna().all():
        return None
    texts = values.astype("string")
    order = texts.value_counts()
    shown = [*order.index[:_VALUES]]
    named = texts.where(texts.isin(shown) | texts.isna(), f"{len(order) - len(shown)} others").fillna(NOT_KNOWN)
    rows = []
    for value in dict.fromkeys([*shown, *sorted(set(named) - set(shown))]):
        here = named == value
        counts = [int((here & (labels == name)).sum()) for name in classes]
        rows.append([str(value), *map(grouped, [*counts, sum(counts)])])
    return Table(title, pd.DataFrame(rows, columns=[title, *classes, "All"]), 1, False, "")


def age_table(manifest: pd.DataFrame, classes: Sequence[str]) -> Table | None:
    """Tabulate ages by class; ``None`` where none is known."""
    ages = pd.to_numeric(manifest["age"], errors="coerce") if "age" in manifest else pd.Series(dtype=float)
    if not ages.notna().any():
        return None
    rows = []
    for name in classes:
        part = ages[manifest["label"] == name].dropna()
        of_class = int((manifest["label"] == name).sum())
        known = f"{grouped(len(part))} of {grouped(of_class)}"
        if part.empty:
            rows.append([name, known, "n/a", "n/a", "n/a"])
            continue
        low, middle, high = part.quantile([0.25, 0.5, 0.75])
        rows.append([name, known, f"{middle:.0f}", f"{low:.0f} to {high:.0f}", f"{part.min():.0f} to {part.max():.0f}"])
    columns = ["Class", "Known", "Median", "Quartiles", "Range"]
    return Table("Age, years", pd.DataFrame(rows, columns=columns), 1, False, "")


def size_table(manifest: pd.DataFrame, classes: Sequence[str]) -> Table:
    """Tabulate the most frequent sizes of the files of each class."""
    sizes, rows = image_sizes(manifest), []
    for name in classes:
        part = sizes[sizes["label"] == name]
        images = int(part["images"].sum())
        named = part.head(_SIZES)
        counts = {f"{w} × {h}": n for w, h, n in named[["width", "height", "images"]].itertuples(index=False)}
        if (others := len(part) - len(named)) > 0:
            counts[f"{others} other size{'s' * (others > 1)}"] = images - int(named["images"].sum())
        rows += [[name, size, grouped(int(n)), _share(n, images)] for size, n in counts.items()]
    columns = ["Class", "Width × height, pixels", "Images", "Share"]
    return Table("Sizes of the files", pd.DataFrame(rows, columns=columns), 2, True, "")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def format_table(checks: Checks, labels: pd.Series, classes: Sequence[str]) -> Table | None:
    """Count formats and modes of the files by class; ``None`` where there are no files, as of shards."""
    kinds = checks.headers["format"] + ", " + checks.headers["mode"]
    return value_table(kinds, labels, classes, "Format, mode")


def acquisition_table(probe: AcquisitionProbe) -> Table:
    """Tabulate how well each measurement tells the classes, the best first, and its median by class."""
    names = sorted(probe.medians.columns, key=lambda name: -_value(probe.parts.get(name)))
    rows = [Row(["All together", *[""] * len(probe.medians)], {"ROC-AUC, macro": probe.auc or "n/a"}, ("", ""))]
    for name in names:
        medians = [f"{value:.3g}" if pd.notna(value) else "n/a" for value in probe.medians[name]]
        cell: Metric | str = probe.parts.get(name, "all the same")
        title = MEASUREMENTS[name][0].upper() + MEASUREMENTS[name][1:]
        rows.append(Row([title, *medians], {"ROC-AUC, macro": cell}, ("", f" ({MEASUREMENTS[name]})")))
    note = "Below each class: the median of its images."
    return metric_table("How the images were made", ["Measured", *probe.medians.index], rows, note=note)


def _value(metric: Metric | None) -> float:
    return 0.0 if metric is None or metric["value"] is None else metric["value"]


def fix_table(fixes: pd.DataFrame) -> Table:
    """Count what a fix did, by split and class; ids and reasons are in the table of the fixes."""
    rows = []
    for action, part in fixes.groupby("action"):
        for split, of_split in part.groupby("split"):
            counts = ", ".join(f"{name} {n}" for name, n in of_split["label"].value_counts().sort_index().items())
            why = of_split["reason"].str.extract(r"^(\w+(?: as a \w+| for a \w+)?)")[0].value_counts()
            reasons = ", ".join(f"{reason} {n}" for reason, n in why.items()) if len(why) > 1 else str(why.index[0])
            rows.append([str(action), str(split), grouped(len(of_split)), reasons, counts])
    columns = ["Action", "Split", "Images", "Reason", "Classes"]
    frame = pd.DataFrame(rows, columns=columns)[["Action", "Split", "Reason", "Classes", "Images"]]
    return Table("What the fixes do", frame, 4, True, "")
