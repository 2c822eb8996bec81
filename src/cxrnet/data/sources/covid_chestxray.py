"""COVID-19 image data collection: chest radiographs from publications, one row of metadata an image.

Origin: https://github.com/ieee8023/covid-chestxray-dataset. Cite J. P. Cohen, P. Morrison, L. Dao, K. Roth, T. Q.
Duong, M. Ghassemi, "COVID-19 Image Data Collection: Prospective Predictions Are the Future", arXiv:2006.11988, 2020,
and J. P. Cohen, P. Morrison, L. Dao, "COVID-19 image data collection", arXiv:2003.11597, 2020.
Images: JPEG or PNG of any size, grey, RGB, RGBA or palette, many with coloured arrows or letters. The state of 22 June
2020 has 751 rows (667 X-rays, 84 CT) of 380 patients. The rules below, with ``covid`` for every finding that names
COVID-19 and ``non_covid`` for every other known one, keep 408 rows of 262 patients with the views PA and AP, 510 of 319
with AP Supine of patients who have neither, and 542 of 319 with all AP Supine. Later states have more rows and write a
finding as a path (``Pneumonia/Viral/COVID-19``).
Layout: ``images/``, ``metadata.csv``; ``annotations/lungVAE-masks/<image stem>_mask.png`` (196 lung masks drawn by the
network of R. Selvan et al., arXiv:2005.10052: good enough to cover lungs, not to measure them).
Licence: of each image in the column ``license``: Apache 2.0, CC BY, CC BY-NC-SA, CC BY-NC-ND, or none stated; the
metadata are CC BY-NC-SA 4.0.
Known issues: ``conf/data/_covid_chestxray_issues.yaml``, from where reports and model cards state them. A file that
stands in two rows under two patients is one image here, and all images of the two patients share a ``group_id``, so
that no split parts them. The header ends with a comma, and what stands below the column without a name belongs to the
notes.
"""

import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd

from cxrnet.core.grouping import link
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError

_EXTRA = ("finding", "sex", "age", "url", "license", "location")
_NEEDED = ("patientid", "view", "modality", "folder", "filename", *_EXTRA)
_MASKS = Path("annotations") / "lungVAE-masks"
_NAMED = 3  # missing files that the log names

logger = logging.getLogger("cxrnet")


def covid_chestxray(
    root: str | Path,
    views: Sequence[str],
    fallback_views: Sequence[str],
    findings: Mapping[str, Sequence[str]],
    left_out_findings: Sequence[str],
) -> pd.DataFrame:
    """Read the X-rays that :func:`select` keeps and whose file is there; they are not split.

    Args:
        root: the folder that holds ``images/`` and ``metadata.csv``.
        views: views of the images, as the metadata call them.
        fallback_views: taken of patients only who have no image in ``views``.
        findings: shell patterns of the findings of each class; the first class with one that fits wins.
        left_out_findings: shell patterns of findings that belong to no class whatever ``findings`` says.

    Returns:
        A manifest with ``view``, ``patient_id``, ``mask_path`` and the further columns ``finding``, ``sex``, ``age``,
        ``url``, ``license`` and ``location``; ``image_id`` is the name of the file.

    Raises:
        CxrnetError: the data set is not there or not in its layout, no row is kept, or none of the files is there.
    """
    top = Path(root)
    there = {"images/": (top / "images").is_dir(), "metadata.csv": (top / "metadata.csv").is_file()}
    if missing := [name for name, found in there.items() if not found]:
        raise CxrnetError(
            f"data.root: '{top}' has no {' and no '.join(missing)}; covid_chestxray needs images/ and metadata.csv "
            "(see data/README.md)"
        )
    top = top.resolve()
    rows = read_metadata(top / "metadata.csv")
    kept, reasons = select(rows, views, fallback_views, findings, left_out_findings)
    if kept.empty:
        raise CxrnetError(
            f"data.manifest: no row of '{top / 'metadata.csv'}' is kept ({_text(reasons)}); change views or findings"
        )
    images, more = _one_row_a_file(kept, top / "images")
    logger.info(
        "covid_chestxray: %d of %d rows (%d patients) kept by the metadata, of which %d have their file here "
        "(%d images); left out: %s",
        len(kept),
        len(rows),
        kept["patientid"].replace("", pd.NA).nunique(),
        len(kept) - more["file not here"],
        len(images),
        _text(reasons + more),
    )
    return make_manifest(_manifest_rows(images, top), str(root))


def _manifest_rows(images: pd.DataFrame, top: Path) -> pd.DataFrame:
    """Put the metadata of images, one row a file, under the names of a manifest; all is text, NA where unknown."""
    masks = [top / _MASKS / f"{Path(name).stem}_mask.png" for name in images["filename"]]
    rows = pd.DataFrame(
        {
            "image_id": images["filename"],
            "path": [str(top / "images" / name) for name in images["filename"]],
            "label": images["label"],
            "patient_id": images["patientid"],
            "view": images["view"],
            "source": "covid_chestxray",
            "mask_path": [str(mask) if mask.is_file() else "" for mask in masks],
            "group_id": images["group_id"],
            **{name: images[name] for name in _EXTRA},
        }
    )
    return rows.astype("string").replace("", pd.NA)


def read_metadata(path: Path) -> pd.DataFrame:
    """Read the columns of ``metadata.csv`` that are used, and ``group_id``, which names the patients who share a file.

    All is text, empty where unknown.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:  # states before a cleaning, or one saved by a spreadsheet
        text = content.decode("latin-1")
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:
        raise CxrnetError(f"data.root: '{path}' is no table ({str(error).splitlines()[0]}); get it again") from error
    if missing := [name for name in _NEEDED if name not in table.columns]:
        raise CxrnetError(f"data.root: '{path}' has no column {', '.join(missing)}; get it again (see data/README.md)")
    rows = table[list(_NEEDED)].apply(lambda column: column.str.strip())
    patients = rows["patientid"].groupby(link(rows, ("patientid", "filename")))
    together = patients.transform(lambda ids: ", ".join(sorted(set(ids))))
    return rows.assign(group_id=together.where(patients.transform("nunique") > 1, ""))


def select(
    rows: pd.DataFrame,
    views: Sequence[str],
    fallback_views: Sequence[str],
    findings: Mapping[str, Sequence[str]],
    left_out_findings: Sequence[str],
) -> tuple[pd.DataFrame, Counter[str]]:
    """Choose rows by the metadata alone, whether their files are there or not; as :func:`covid_chestxray`.

    Returns:
        The rows kept, with ``label``, and the number left out by reason; a row with several reasons counts under
        the first of: not an image, not an X-ray, view, finding, fallback view that isn't needed.
    """
    views, fallback_views = _names(views), _names(fallback_views)

    def label_of(finding: str) -> str:  # empty where it has none
        for label, patterns in [("", left_out_findings), *findings.items()]:
            if any(fnmatchcase(finding, pattern) for pattern in _names(patterns)):
                return label
        return ""

    label = rows["finding"].map({finding: label_of(finding) for finding in set(rows["finding"])})
    known = rows[["view", "finding"]].replace("", "not known")
    other_view = ~rows["view"].isin([*views, *fallback_views])
    conditions = [rows["folder"] == "volumes", rows["modality"] != "X-ray", other_view, label == ""]
    texts = ["a volume, no image", "not an X-ray", "view " + known["view"], "finding " + known["finding"]]
    reason = pd.Series(np.select(conditions, texts, default=""), rows.index)
    served = set(rows.loc[(reason == "") & rows["view"].isin(views), "patientid"]) - {""}
    reason[(reason == "") & ~rows["view"].isin(views) & rows["patientid"].isin(served)] = (
        f"fallback view of a patient with {' or '.join(views)}"
    )
    kept = reason == ""
    return rows.assign(label=label)[kept], Counter(reason[~kept])


def _names(one_or_more: Sequence[str]) -> tuple[str, ...]:
    """Take one name as a list of one: a text would else be taken letter by letter."""
    return (one_or_more,) if isinstance(one_or_more, str) else tuple(one_or_more)


def _one_row_a_file(kept: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, Counter[str]]:
    """Keep the rows whose file is there, one a file, and count those left out by reason."""
    # Names are compared here and not by the file system, which may take x.jpg for x.JPG.
    here = kept["filename"].isin({path.name for path in folder.iterdir()})
    missing = kept.loc[~here, "filename"].unique()
    first = ", ".join([*missing[:_NAMED], "..."][: len(missing)])
    if not here.any():
        raise CxrnetError(
            f"data.root: '{folder}' holds none of the {len(missing)} images that metadata.csv names ({first}); "
            "get them again (see data/README.md)"
        )
    if len(missing):
        logger.warning("covid_chestxray: %d files are not in '%s': %s", len(missing), folder, first)
    rows = kept[here]
    agreed = rows.groupby("filename")["label"].transform("nunique") == 1
    images = rows[agreed].drop_duplicates("filename")
    counts = {
        "file not here": int((~here).sum()),
        "rows of one file that disagree on its class": int((~agreed).sum()),
        "second row of a file": int(agreed.sum()) - len(images),
    }
    return images, Counter({reason: count for reason, count in counts.items() if count})


def _text(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "nothing"
