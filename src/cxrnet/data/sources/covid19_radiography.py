"""COVID-19 Radiography Database: four classes of chest radiographs with lung masks.

Origin: Kaggle, by ``tawsifurrahman``, https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database. Cite
M. E. H. Chowdhury et al., "Can AI help in screening Viral and COVID-19 pneumonia?", IEEE Access 8 (2020),
132665-132676, and T. Rahman et al., "Exploring the effect of image enhancement techniques on COVID-19 detection using
chest X-ray images", Computers in Biology and Medicine 132 (2021), 104319.
Images: 21,165 frontal radiographs, PNG, 299 x 299 (COVID 3,616, Lung_Opacity 6,012, Normal 10,192, Viral Pneumonia
1,345), and a lung mask of each, 256 x 256. No patients, no views. A table of each class names the collection of each
image.
Layout: ``COVID-19_Radiography_Dataset/CLASS/images/CLASS-1.png``, ``CLASS/masks/CLASS-1.png``, ``CLASS.metadata.xlsx``
(``FILE NAME``, ``FORMAT``, ``SIZE``, ``URL``; the table of Normal writes ``NORMAL-1``). Older versions have no masks
and no ``images/``: ``CLASS/CLASS-1.png``; their folders may be called ``COVID-19``, ``NORMAL``, ``Viral_Pneumonia``.
Licence: the copy from which the issues are counted states none, and the images come from collections with licences of
their own; read the Kaggle page before passing them on.
Known issues: ``conf/data/_covid19_radiography_issues.yaml``, from where reports and model cards state them.
"""

import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from cxrnet.data.images.files import find_images
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError

FOLDER = "COVID-19_Radiography_Dataset"
PUBLISHED = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}
NAME, URL = "FILE NAME", "URL"

logger = logging.getLogger("cxrnet")


def covid19_radiography(root: str | Path, classes: Sequence[str] | None, partial: bool) -> pd.DataFrame:
    """Read the data set, or some of its classes; it is not split.

    Args:
        root: the folder that holds ``COVID-19_Radiography_Dataset``, or that folder itself.
        classes: those wanted, as their folders are called; ``None`` for all four.
        partial: goes on, with a warning, where classes, masks or tables are missing. In the older layout,
            where all images lie in the folders of the classes, only a class can be missing.

    Returns:
        A manifest; ``image_id`` is the path below that folder, ``source`` the collection as :func:`collection` names
        it (``covid19_radiography`` where no table says), ``url`` its address, ``mask_path`` a mask that may differ
        from the image in size.

    Raises:
        CxrnetError: the data set is not there, a class is not known, a table can't be read, or something is missing
            and ``partial`` is false.
    """
    top = _find(Path(root))
    wanted = {classes} if isinstance(classes, str) else set(PUBLISHED if classes is None else classes)
    if unknown := sorted(wanted - set(PUBLISHED)):
        raise CxrnetError(f"data.manifest.classes: '{unknown[0]}' is no class; choose from {', '.join(PUBLISHED)}")
    folders = {name: folder for name in sorted(wanted) if (folder := _folder(top, name)) is not None}
    older = not any((folder / "images").is_dir() for folder in folders.values())
    missing = _missing(top, sorted(wanted), folders, older)
    if missing and not partial and not (older and len(folders) == len(wanted)):
        raise CxrnetError(
            f"data.root: '{top}' lacks {', '.join(missing)}; complete it (see data/README.md), choose other "
            "classes, or go on with what is there by data.manifest.partial=true (in data=merged: partial of the part)"
        )
    rows = [row for name, folder in folders.items() for row in _rows(top, name, folder)]
    manifest = make_manifest(pd.DataFrame(rows).astype("string"), str(root))
    if differences := _differences(manifest, sorted(wanted), missing):
        logger.warning("covid19_radiography: not as published: %s", ", ".join(differences))
    return manifest


def _missing(top: Path, wanted: Sequence[str], folders: Mapping[str, Path], older: bool) -> list[str]:
    """List the classes, masks and tables that aren't there; of the older layout, the classes."""
    missing: list[str] = []
    for name in wanted:
        folder = folders.get(name)
        if folder is None or not (older or (folder / "images").is_dir()):
            missing.append(f"class {name}")
        elif not older:
            parts = (f"{folder.name}/masks", f"{folder.name}.metadata.xlsx")
            missing += [part for part in parts if not (top / part).exists()]
    return missing


def _differences(manifest: pd.DataFrame, wanted: Sequence[str], missing: Sequence[str]) -> list[str]:
    """List what differs from the published data set."""
    counts = manifest["label"].value_counts()
    differences = [f"no {part}" for part in missing] + [
        f"{counts.get(name, 0)} of {PUBLISHED[name]} images of {name}"
        for name in wanted
        if f"class {name}" not in missing and counts.get(name, 0) != PUBLISHED[name]
    ]
    for column, things in {"mask_path": "mask", "url": "row in the table"}.items():
        # Where a whole folder or table is missing that was said already.
        empty = manifest[column].isna() & manifest["label"].isin(manifest.loc[manifest[column].notna(), "label"])
        differences += [f"{empty.sum()} images without {things}"] if empty.any() else []
    return differences


def collection(url: str) -> str:
    """Shorten the address of a collection to its name: host and path, in lower case.

    >>> collection("https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/#data")
    'kaggle.com/c/rsna-pneumonia-detection-challenge'
    """
    parts = urlsplit(url.strip() if "//" in url else f"//{url.strip()}")
    return (parts.netloc.removeprefix("www.") + parts.path).rstrip("/").lower()


def _find(root: Path) -> Path:
    places = (root / FOLDER, root / "COVID-19 Radiography Database", root)
    for place in places:
        if any(_folder(place, name) is not None for name in PUBLISHED):
            return place.resolve()
    looked = " and ".join(f"'{place.as_posix()}'" for place in places)
    raise CxrnetError(
        f"data.root: the COVID-19 Radiography Database is not at '{root}' (no class folder in {looked}); "
        f"unpack {FOLDER}/ from Kaggle there, see data/README.md"
    )


def _folder(top: Path, name: str) -> Path | None:
    """Find the folder of a class, under its name or one of older versions; ``None`` where none has images."""

    def plain(text: str) -> str:
        return re.sub(r"[\W_]", "", text).casefold()

    wanted = {plain(name), *(("covid19",) if name == "COVID" else ())}
    inside = sorted(top.iterdir()) if top.is_dir() else []
    found = (path for path in inside if path.is_dir() and plain(path.name) in wanted)
    return next((path for path in found if (path / "images").is_dir() or any(map(Path.is_file, path.iterdir()))), None)


def _rows(top: Path, name: str, folder: Path) -> list[dict[str, str | None]]:
    urls = _urls(top / f"{folder.name}.metadata.xlsx")
    masked, published = (folder / "masks").is_dir(), (folder / "images").is_dir()
    masks = {path.name: str(path) for path in find_images(folder / "masks").images} if masked else {}
    rows: list[dict[str, str | None]] = []
    for file in find_images(folder / "images" if published else folder).images:
        url = urls.get(file.stem.casefold())
        source = collection(url) if url else "covid19_radiography"
        row = {"image_id": file.relative_to(top).as_posix(), "path": str(file), "label": name, "source": source}
        rows.append({**row, "mask_path": masks.get(file.name), "url": url})
    return rows


def _urls(table: Path) -> dict[str, str]:
    """Read the address by name of the file without its ending, in lower case; empty where there is no table."""
    if not table.exists():
        return {}
    try:
        rows = pd.read_excel(table, usecols=[NAME, URL], dtype=str, keep_default_na=False)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"data.root: '{table}' can't be read ({reason}); get it again, or remove it") from error
    names = rows[NAME].str.strip().str.casefold().str.removesuffix(".png")
    return {name: url for name, url in zip(names, rows[URL].str.strip(), strict=True) if url}
