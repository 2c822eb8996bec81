"""The tables of an audit: looks, planted regions, changed images, maps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrnet.data.regions import BORDER as BORDER_SHARE
from cxrnet.data.regions import CORNER, box_text
from cxrnet.evaluation.audit import (
    ACQUISITION,
    BORDER,
    CORNERS,
    LUNGS_ONLY,
    LUNGS_OUT,
    OUTLINE,
    SHARPNESS,
    THUMBNAIL,
    WHOLE,
    Look,
)
from cxrnet.reporting.rendering import Table
from cxrnet.reporting.wording import grouped, level_text

SEEN = {
    WHOLE: "Whole image",
    LUNGS_OUT: "Lungs blacked out",
    LUNGS_ONLY: "Lungs only",
    OUTLINE: "Rectangle around the lungs only, white",
    BORDER: f"Border only (outer {100 * BORDER_SHARE:g} %)",
    CORNERS: f"Corners only ({100 * CORNER:g} % of each side)",
    THUMBNAIL: "8 × 8 thumbnail",
    ACQUISITION: "Acquisition",
    SHARPNESS: "Sharpness and contrast",
    "source": "Source",
    "view": "View",
}


def looks_table(looks: Sequence[Look], found: Sequence[Look]) -> pd.DataFrame:
    """List all looks, one row each, with their share and whether they are findings."""
    names = ("kind", "name", "label", "value", "low", "high", "whole", "share", "n", "reason", "counts")
    rows = [{name: getattr(look, name) for name in names} | {"finding": look in found} for look in looks]
    return pd.DataFrame(rows, columns=[*names, "finding"])


def seen_table(looks: Sequence[Look], found: Sequence[Look], lungs: str, level: float) -> Table:
    """Tabulate what the classes can be told from: by a probe, and by the model itself.

    Args:
        looks: all looks.
        found: those that are findings.
        lungs: ``masks`` or ``box``.
        level: level of the intervals.
    """
    looks = [look for look in looks if look.kind != "planted"]
    labels, rows = list(dict.fromkeys(look.label for look in looks)), []
    titles = {"data": "Linear probe, cross-validated by patient", "model": "The model itself"}
    seen = dict.fromkeys((look.kind, look.name, look.n) for look in looks)
    for kind, name, n in seen:
        of = {look.label: look for look in looks if (look.kind, look.name, look.n) == (kind, name, n)}
        cells = [_told(of[label], of[label] in found) if label in of else "" for label in labels]
        rows.append([titles[kind], SEEN.get(name, name), grouped(n), *cells])
    columns = ["", "Seen", "Images", *(f"ROC-AUC, {label}" for label in labels)]
    if len(labels) == 1:  # two classes share it
        columns[-1] = "ROC-AUC"
    reasons = dict.fromkeys(
        f"{SEEN.get(look.name, look.name)}, {look.label}: {look.reason}" for look in looks if look.reason
    )
    missing = f"\nNo interval: {'; '.join(reasons)}." if reasons else ""
    stated = level_text(level)
    place = "masks; blacked out is the rectangle around them with a margin" if lungs == "masks" else box_text()
    note = (
        f"ROC-AUC of the class against the rest with its {stated} confidence interval, a bootstrap of patients. Below "
        "it the share of what the whole image tells, (ROC-AUC − 0.5) / (that of the whole image − 0.5). A finding has "
        f"more than half of it, at {stated} for all looks together (Bonferroni). What the disease itself may change "
        f"(thumbnail, sharpness and contrast, lungs, where they lie) is no finding by itself. Lungs: {place}.{missing}"
    )
    return Table("What the classes can be told from", pd.DataFrame(rows, columns=columns), 2, True, note)


def shortened(looks: Sequence[Look], found: Sequence[Look]) -> Table:
    """Tabulate the looks that count, and what they are beside, as narrow as a console is."""
    rows = []
    for look in looks:
        if look.kind != "planted" and (look.counts or look.name == WHOLE):
            by = "probe" if look.kind == "data" else "model"
            mark = "finding" if look in found else ""
            rows.append([look.name, by, look.label, grouped(look.n), _cell(look).replace("\n", " "), mark])
    note = "all looks are on the page"
    return Table("ROC-AUC", pd.DataFrame(rows, columns=["Seen", "By", "Class", "n", "ROC-AUC", ""]), 3, False, note)


def planted_table(looks: Sequence[Look], found: Sequence[Look]) -> Table | None:
    """Tabulate how many predictions follow a planted region; ``None`` where none was planted."""
    looks = [look for look in looks if look.kind == "planted"]
    rows = [
        [
            f"{look.name.capitalize()} of {look.label}",
            _cell(look),
            "n/a" if np.isnan(look.whole) else f"{look.whole:.2f}",
            grouped(look.n),
            "finding" if look in found else "",
        ]
        for look in looks
    ]
    columns = ["Planted", "Predicted so", "With those of the own class", "Images", "Verdict"]
    note = (
        "The corners, or the border, of a random image of a class are put into the images of all other classes: the "
        "share of these that is then predicted as that class. Beside it the same with corners or border of another "
        "image of the own class, which tells what the cut alone does."
    )
    return (
        Table("A region planted in other images", pd.DataFrame(rows, columns=columns), 1, False, note) if rows else None
    )


def moved_table(changes: pd.DataFrame, level: float) -> Table:
    """Tabulate how sensitivity and specificity move (:func:`cxrnet.evaluation.audit.change_table`)."""
    rows = []
    for name, of_class in changes.groupby(["intervention", "class"], sort=False):
        cells = []
        for row in of_class.to_dict("records"):
            if np.isnan(row["change"]):
                cells.append("n/a")
                continue
            ends = "" if np.isnan(row["low"]) else f"\n({row['low']:+.2f} to {row['high']:+.2f})"
            cells.append(f"{row['before']:.2f} → {row['after']:.2f}{ends}".replace("-", "−"))
        rows.append([name[0].capitalize() if name[0].islower() else name[0], name[1], *cells])
    reasons = dict.fromkeys(changes["reason"]) if len(changes) else {}
    why = "; ".join(reason for reason in reasons if reason)
    note = (
        f"Below each change its paired {level_text(level)} interval: the same resamples of patients before and after, "
        f"for each row by itself.{f' No interval: {why}.' if why else ''} Lungs and border are blacked out, corner "
        "markers are taken out by a grey opening; blur: Gaussian of 1 % of the side; contrast: 60 %; JPEG: quality 20; "
        "rotation: 5 degrees. A network may be shaken by a black area that it has never seen: only the looks above "
        "count for the verdict."
    )
    columns = ["Changed", "Class", "Sensitivity", "Specificity"]
    return Table("The model on changed images", pd.DataFrame(rows, columns=columns), 2, True, note)


def map_table(inside: pd.DataFrame) -> Table | None:
    """Tabulate how much of the maps lies inside lungs and lesions; ``None`` where that isn't known."""
    if inside.empty:
        return None
    rows = []
    for row in inside.to_dict("records"):
        ends = "" if np.isnan(row["low"]) else f"\n({row['low']:.2f} to {row['high']:.2f})"
        more = "" if np.isnan(row["excess_low"]) else f"\n({row['excess_low']:+.2f} to {row['excess_high']:+.2f})"
        measure = "share of the map" if row["measure"] == "energy" else "maximum inside"
        rows.append(
            [
                f"Inside the {row['region']}",
                row["map"],
                measure,
                f"{row['value']:.2f}{ends}",
                f"{row['area']:.2f}",
                f"{row['excess']:+.2f}{more}".replace("-", "−"),
                grouped(row["n"]),
            ]
        )
    checks = inside.drop_duplicates("method")
    failed = "; ".join(f"{row['method']}: {row['fails']} of {row['of']} maps fail" for row in checks.to_dict("records"))
    note = (
        "Of the predicted class. Area: the region's share of the image, which a map that knows nothing has by chance. "
        f"Sanity check against random weights (Adebayo et al. 2018): {failed}."
    )
    columns = ["Region", "Map", "Measure", "Value", "Area", "Beyond the area", "Images"]
    return Table("What the maps show", pd.DataFrame(rows, columns=columns), 3, True, note)


def _cell(look: Look) -> str:
    if np.isnan(look.value):
        return "n/a"
    return f"{look.value:.2f}" if np.isnan(look.low) else f"{look.value:.2f}\n({look.low:.2f} to {look.high:.2f})"


def _told(look: Look, is_finding: bool) -> str:
    """Write a look of the table of what is seen: value, interval, share, and whether it is a finding."""
    notes = [] if look.name == WHOLE or np.isnan(look.share) else [f"share {max(0.0, look.share):.2f}"]
    notes += ["FINDING"] * is_finding
    return "\n".join([_cell(look), *([", ".join(notes)] if notes else [])])
