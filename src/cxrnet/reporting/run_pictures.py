"""The pictures of a result: confident errors and typical hits of each class, duplicates, augmented samples."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import marked_duplicates
from cxrnet.evaluation.predictions import classes_of, probabilities_of
from cxrnet.reporting.data_pictures import Looks, pair_groups
from cxrnet.reporting.pictures import (
    NONE_ASKED,
    Figure,
    Overlays,
    PictureGroup,
    Pictures,
    figure,
    picture,
)
from cxrnet.reporting.plots.dataset import spread

VIEWS = 5
"""Augmented views of an image."""
_NOTE = "Images as the network sees them; below each its file, its label, and its prediction with the probability."
_NO_OVERLAYS: Overlays = MappingProxyType({})


def chosen_images(predictions: pd.DataFrame, number: int) -> pd.DataFrame:
    """Choose the images of a result that are worth a look.

    Args:
        predictions: of one split, every label known.
        number: images of each class that are errors, and that are hits.

    Returns:
        ``image_id``, ``label``, ``predicted``, ``probability`` (of the predicted class, 0..1), ``hit`` (bool): by class
        in order, the errors first, each the surest first.
    """
    classes = classes_of(predictions)
    places = predictions["predicted"].map({name: place for place, name in enumerate(classes)}).to_numpy(int)
    table = predictions[["image_id", "label", "predicted"]].reset_index(drop=True)
    table["probability"] = probabilities_of(predictions)[np.arange(len(table)), places]
    table["hit"] = (table["label"] == table["predicted"]).to_numpy(bool)
    ordered = table.sort_values("probability", ascending=False, kind="stable")
    parts = [
        ordered[(ordered["label"] == name) & (ordered["hit"] == hit)].head(number)
        for name in classes
        for hit in (False, True)
    ]
    return pd.concat(parts, ignore_index=True)


def result_groups(
    predictions: pd.DataFrame, looks: Looks, number: int, overlays: Overlays = _NO_OVERLAYS
) -> list[PictureGroup]:
    """Show the most confident errors and the most typical hits of each class.

    Args:
        predictions: of one split, every label known.
        looks: shows an image.
        number: images of each class that are errors, and that are hits.
        overlays: by ``image_id``, what stands beside an image, such as an attribution.
    """
    chosen, groups = chosen_images(predictions, number), []
    counts = predictions["predicted"].groupby([predictions["label"], predictions["label"] == predictions["predicted"]])
    sizes = counts.size()
    for name in classes_of(predictions):
        if name not in set(predictions["label"]):
            groups.append(PictureGroup(f"{name}: no image", (), f"No image is labelled {name}."))
            continue
        for hit, what, none in (
            (False, "most confident errors", "No image of this class was predicted wrongly."),
            (True, "most typical hits", "No image of this class was predicted rightly."),
        ):
            rows = chosen[(chosen["label"] == name) & (chosen["hit"] == hit)]
            figures = [_predicted(row, looks, overlays) for row in rows.to_dict("records")]
            total = int(sizes.get((name, hit), 0))
            title = f"{name}: {what}" + (f", {len(figures)} of {total}" if total else "")
            wide = any(len(each.pictures) > 1 for each in figures)
            groups.append(PictureGroup(title, figures, "" if figures else none, "pair" if wide else "single"))
    return groups


def _predicted(row: Mapping[object, object], looks: Looks, overlays: Overlays) -> Figure:
    image = str(row["image_id"])
    said = f"predicted {row['predicted']}, {row['probability']:.3f}"
    return figure(image, looks(image), [image, f"label {row['label']}", said], overlays.get(image))


def run_pictures(
    data: XrayDataModule,
    predictions: pd.DataFrame,
    number: int,
    augmentation: str,
    overlays: Overlays = _NO_OVERLAYS,
    maps: str = "",
) -> Pictures:
    """Make the pictures of a training run's report, as the network sees the images.

    Args:
        data: of the run.
        predictions: of the split that the result is stated on.
        number: images of a group; 0 leaves all pictures out.
        augmentation: how training images were augmented; begins with "none" where they weren't.
        overlays: by ``image_id``, what stands beside an image, such as an attribution.
        maps: what is to be known of the overlays, or why there are none.
    """
    if number == 0:
        return Pictures(note=NONE_ASKED)
    looks = Looks(data.manifest, data.images, as_trained=True)
    pairs = marked_duplicates(data.duplicates, data.manifest)
    rest = "duplicates.csv of python -m cxrnet.prepare; their group_id in manifest.parquet is the same"
    found = pair_groups(pairs, looks, number, rest)
    none = PictureGroup("Duplicates", (), "No duplicates were found among the images.")
    groups = [*result_groups(predictions, looks, number, overlays), *(found or [none])]
    return Pictures([*groups, augmented_group(data, number, augmentation)], f"{_NOTE} {maps}".strip())


def augmented_group(data: XrayDataModule, number: int, augmentation: str) -> PictureGroup:
    """Show training images, of each class in turn, with augmented views beside each; torch's random state stays."""
    title, note = "Augmented samples", f"Augmentation: {augmentation}."
    if data.augment is None or augmentation.startswith("none"):
        return PictureGroup(title, (), note)
    train = data.rows("train")
    each = [spread(train, name, -(-number // len(data.classes))) for name in data.classes]
    turns = pd.concat(each).groupby("label", sort=False).cumcount().sort_values(kind="stable").index
    rows = train.loc[turns[:number]]
    originals = data.images[rows.index.to_numpy()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.seed)
        batch = torch.from_numpy(originals).unsqueeze(1).repeat_interleave(VIEWS, dim=0)
        views = data.augment(batch).numpy().reshape(len(rows), VIEWS, *originals.shape[1:])
    figures = []
    for name, label, original, its in zip(rows["image_id"], rows["label"], originals, views, strict=True):
        pictures = [picture(original, f"{name}, {label}", "original")]
        pictures += [picture(view, f"{name}, augmented", "augmented") for view in its]
        figures.append(Figure(pictures, [str(name), str(label)]))
    return PictureGroup(title, figures, note, "strip")


def pictures_elsewhere(number: int) -> Pictures:
    """Say in the report over several runs where the pictures are."""
    return Pictures(note=NONE_ASKED if number == 0 else "X-rays are shown in the report of each run, in its folder.")


def set_pictures(predictions: pd.DataFrame, looks: Looks, number: int) -> Pictures:
    """Make the pictures of an external data set; ``number`` images of a group, 0 leaves all pictures out."""
    if number == 0:
        return Pictures(note=NONE_ASKED)
    return Pictures(result_groups(predictions, looks, number), _NOTE)
