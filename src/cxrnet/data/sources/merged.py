"""Data sets under common classes: several as one, or one in the classes of a model that was trained on another.

Merging makes a well-known trap: when each class comes from a collection of its own, a network may tell the collections
(scanner, size, borders, letters) instead of the disease. ``source`` keeps where each image is from.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from cxrnet.data.manifest import make_manifest
from cxrnet.data.settings import check_call
from cxrnet.errors import CxrnetError

logger = logging.getLogger("cxrnet")


def merged(parts: Mapping[str, Mapping[str, Any]], per_class: int | Literal["equal"] | None, seed: int) -> pd.DataFrame:
    """Put data sets together.

    Args:
        parts: by name, each with ``manifest`` (a manifest, or a function that reads one) and ``labels`` (the new class
            by the part's own; images of a class not named are left out).
        per_class: images drawn of each new class: a number, ``equal`` for as many as the smallest class has, or
            ``None`` for all.
        seed: of the draw, which depends on the seed and the names of the images only, not on their order. A further
            part doesn't change which of two images of a class comes first.

    Returns:
        A manifest. The name of its part and a slash stand before each ``image_id``, ``patient_id`` and ``group_id``.
        The split is kept where every image has one, else dropped.

    Raises:
        CxrnetError: a part lacks ``manifest`` or ``labels``, its labels name none of its classes or another one, or a
            class has fewer images than are to be drawn.
    """
    if not parts:
        raise CxrnetError("data.manifest.parts: nothing to merge; give two data sets or more")
    rows = pd.concat(
        [_part(f"data.manifest.parts.{name}", name, part) for name, part in parts.items()], ignore_index=True
    )
    if rows["split"].isna().any() and rows["split"].notna().any():
        logger.info("merged: some parts have no published split, so those of the others are dropped")
        rows["split"] = pd.array([pd.NA] * len(rows), "string")
    counts = rows["label"].value_counts()
    wanted = int(counts.min()) if per_class == "equal" else per_class
    if wanted is not None:
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
            raise CxrnetError(f"data.manifest.per_class: {per_class} is no number; give one from 1 on, equal, or null")
        if counts.min() < wanted:
            raise CxrnetError(
                f"data.manifest.per_class: class '{counts.idxmin()}' has {counts.min()} images, {wanted} are to be "
                "drawn; give a smaller number, or equal"
            )
        logger.info("merged: %d images of each class drawn from %s", wanted, counts.sort_index().to_dict())
        # The first by a hash of seed and id.
        keys = rows["image_id"].map(lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
        rows = rows.loc[keys.sort_values().index].groupby("label").head(wanted)
    return make_manifest(rows, "data.manifest")


def _part(key: str, name: str, part: Mapping[str, Any]) -> pd.DataFrame:
    """Read the images of one part that have a new class, under new ids."""
    if set(part) != {"manifest", "labels"}:
        raise CxrnetError(f"{key}: holds {', '.join(part)}; give it manifest and labels")
    source: pd.DataFrame | Callable[[], pd.DataFrame] = part["manifest"]
    if callable(source):
        check_call(source, f"{key}.manifest")
    manifest, labels = source() if callable(source) else source, dict(part["labels"])
    if not labels:
        raise CxrnetError(f"{key}.labels: names no class; give one or more, or drop the part")
    classes = sorted(set(manifest["label"]))
    if unknown := [label for label in labels if label not in classes]:
        raise CxrnetError(f"{key}.labels: '{unknown[0]}' is no class of this part; it has {', '.join(classes)}")
    rows, left_out = _in_classes(manifest, labels)
    if left_out:
        counts = ", ".join(f"{label} {count}" for label, count in left_out.items())
        logger.info("merged: %s: classes that labels doesn't name are left out: %s", name, counts)
    return rows.assign(**{column: f"{name}/" + rows[column] for column in ("image_id", "patient_id", "group_id")})


def relabel(
    manifest: pd.DataFrame, classes: Sequence[str], labels: Mapping[str, str | None], where: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Give every image the name that a model has for its class; count those that are left out by their old label.

    ``labels`` has the class of the model by the data set's own label; ``None`` leaves its images out, and a label that
    is one of ``classes`` stands for itself. ``where`` is the key of ``labels``, for messages.

    Raises:
        CxrnetError: a label is neither a class nor in ``labels``, or ``labels`` names what there isn't.
    """
    own = sorted(set(manifest["label"]))
    if unknown := [label for label in labels if label not in own]:
        raise CxrnetError(f"{where}: '{unknown[0]}' is no label of the data, which are {', '.join(own)}")
    if unknown := [name for name in labels.values() if name is not None and name not in classes]:
        raise CxrnetError(f"{where}: '{unknown[0]}' is no class of the bundle, which are {', '.join(classes)}")
    if unmapped := [label for label in own if label not in labels and label not in classes]:
        example = ", ".join(f"{label}: ..." for label in unmapped)
        raise CxrnetError(
            f"{where}: no class of the bundle ({', '.join(classes)}) for the label {', '.join(unmapped)}; give "
            f"{where}={{{example}}}, with a class or null, which leaves the images out"
        )
    named = {label: name for label in own if (name := labels.get(label, label)) is not None}
    return _in_classes(manifest, named)


def _in_classes(manifest: pd.DataFrame, labels: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep the images whose label is named, under its new name; count the others by label."""
    named = manifest["label"].isin(labels)
    left_out = manifest.loc[~named, "label"].value_counts().sort_index()
    rows = manifest[named].reset_index(drop=True)
    kept = rows.assign(label=rows["label"].map(labels).astype("string"))
    return kept, {str(label): int(count) for label, count in left_out.items()}
