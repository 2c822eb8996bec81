"""Maps of what a network looks at, each checked against networks with random weights."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxrnet.core.config import Config
from cxrnet.core.console import bar
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.regions import read_masks
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.attribution import FAILS, agreement, inside_table, random_maps
from cxrnet.evaluation.audit import Sampling
from cxrnet.models.attribution import METHODS, FloatArray, overlay, randomised
from cxrnet.models.bundle import device_of
from cxrnet.models.network import Network
from cxrnet.reporting.audit import Explained
from cxrnet.reporting.pictures import Picture, picture
from cxrnet.reporting.run_pictures import chosen_images
from cxrnet.workflows.looks import AuditImages, Model

TITLES = {"grad_cam": "Grad-CAM", "occlusion": "Occlusion"}
# By how many random networks: two coarse maps may agree by chance, and the mean over several rarely does.
_RANDOM = {"grad_cam": 3, "occlusion": 1}
_AT_ONCE = 16
SCALE = "dark is 0, yellow is the strongest"


@dataclass(frozen=True)
class Maps:
    """Maps of N images.

    Attributes:
        method: a name of :data:`cxrnet.models.attribution.METHODS`.
        array: ``(N, H, W)`` in 0..1.
        random: those of a network with random weights.
        agreement: mean rank correlation with those of random networks, ``(N,)``; NaN where a map is empty.
    """

    method: str
    array: FloatArray
    random: FloatArray
    agreement: npt.NDArray[np.float64]

    @property
    def fails(self) -> npt.NDArray[np.bool_]:
        """Which maps fail the sanity check: they depend little on the weights, ``(N,)``."""
        return np.nan_to_num(self.agreement) >= FAILS

    @property
    def empty(self) -> npt.NDArray[np.bool_]:
        """Which maps are empty, as nothing speaks for the class, ``(N,)``."""
        return np.asarray(self.array.max(axis=(1, 2)) == 0)

    def caution(self, place: int) -> str:
        """Say on a picture what is wrong with its map; empty for nothing."""
        if self.empty[place]:
            return "empty map: nothing in the picture speaks for this class"
        if self.fails[place]:
            agree = self.agreement[place]
            return f"FAILS the sanity check: random weights give nearly the same map (rank correlation {agree:.2f})"
        return ""


def make_maps(
    network: Network, images: UInt8Array, classes: Sequence[int], method: str = "grad_cam", seed: int = 0
) -> Maps:
    """Explain a class of each image, and check each map.

    Args:
        network: in evaluation mode.
        images: ``(N, H, W) uint8`` of the network's size.
        classes: place of the class of each image.
        method: a name of :data:`cxrnet.models.attribution.METHODS`.
        seed: seed of the random networks.
    """
    explain = METHODS[method]
    networks = [network, *(randomised(network, seed + number) for number in range(_RANDOM[method]))]
    made: list[FloatArray] = []
    with bar(f"making maps ({TITLES[method]})", len(networks) * len(images)) as advance:
        for each in networks:
            parts = []
            for start in range(0, len(images), _AT_ONCE):
                chosen = slice(start, start + _AT_ONCE)
                parts.append(explain(each, images[chosen], classes[chosen]))
                advance(len(parts[-1]))
            made.append(np.concatenate(parts))
    own, *others = made
    agreed = np.stack([agreement(own, other) for other in others])
    known = ~np.isnan(agreed)
    mean = np.divide(
        np.nansum(agreed, axis=0), known.sum(axis=0), out=np.full(len(own), np.nan), where=known.any(axis=0)
    )
    return Maps(method, own, others[0], mean)


def map_pictures(
    network: Network, data: XrayDataModule, predictions: pd.DataFrame, number: int
) -> tuple[dict[str, Picture], str]:
    """Lay Grad-CAM of the predicted class over the images that a report shows.

    Args:
        network: in evaluation mode, which made the predictions.
        data: holds the images.
        predictions: of the split that the report is of.
        number: images of a group in the report.

    Returns:
        The pictures by ``image_id``, and what is to be known of them, or why there are none.
    """
    chosen = chosen_images(predictions, number)
    if chosen.empty:
        return {}, ""
    place = pd.Series(data.manifest.index, data.manifest["image_id"])
    images = data.images[place[chosen["image_id"]].to_numpy()]
    classes = [network.config.classes.index(name) for name in chosen["predicted"]]
    try:
        maps = make_maps(network, images, classes)
    except CxrnetError as error:
        return {}, f"No maps stand beside them ({error})."
    pictures = {}
    for row, (image_id, image, heat) in enumerate(zip(chosen["image_id"], images, maps.array, strict=True)):
        caution = maps.caution(row)
        text = f"{image_id}: Grad-CAM of the predicted class. {caution}".strip()
        pictures[str(image_id)] = picture(np.asarray(overlay(image, heat)), text, caution or "Grad-CAM")
    said = f"Beside it Grad-CAM of the predicted class, {SCALE}; one that random weights give as well says so."
    return pictures, said


@dataclass(frozen=True)
class Attribution:
    """Settings of the maps of an audit, as :class:`cxrnet.workflows.settings.Audit` has them."""

    maps: int
    occluded: int
    pictures: int
    seed: int
    device: torch.device

    @classmethod
    def of(cls, config: Config) -> "Attribution":
        """Take them from the configuration of an audit."""
        numbers = {name: config[name] for name in ("maps", "occluded", "pictures", "seed")}
        return cls(**numbers, device=device_of(config["device"]))


def attribute(
    data: AuditImages, model: Model, settings: Attribution, sampling: Sampling
) -> tuple[pd.DataFrame, list[Explained], list[str]]:
    """Make maps of some images, measure them, and choose some to be shown.

    Returns:
        The table of :func:`cxrnet.evaluation.attribution.inside_table`, with ``method``, and ``fails`` of ``of`` maps
        that fail the sanity check; the images that are shown; and what could not be done.
    """
    if not settings.maps:
        return inside_table(data.rows.head(0), {}, {}, sampling), [], ["no attribution: maps=0"]
    some = data.take(_spread(data.rows["label"], settings.maps, settings.seed))
    table, images, regions = model.predict(some), some.images[:], _regions(some, model)
    classes = [model.bundle.classes.index(name) for name in table["predicted"]]
    network = copy.deepcopy(model.bundle.network).to(settings.device)
    made, parts = dict[str, Maps](), []
    for method, number in (("grad_cam", len(some)), ("occlusion", min(settings.occluded, len(some)))):
        if not number:
            continue
        made[method] = maps = make_maps(network, images[:number], classes[:number], method, settings.seed)
        sets = {TITLES[method]: maps.array, f"{TITLES[method]}, random weights": maps.random}
        if method == "grad_cam":
            sets["random map"] = random_maps(maps.array.shape, settings.seed)
        here = {name: marked[:number] for name, marked in regions.items()}
        inside = inside_table(table.iloc[:number], sets, here, sampling)
        parts.append(inside.assign(method=TITLES[method], fails=int(maps.fails.sum()), of=number))
    gaps = [] if regions else ["the maps are not measured: neither lungs nor lesions are known"]
    return pd.concat(parts, ignore_index=True), _shown(table, images, made, settings.pictures), gaps


def _regions(data: AuditImages, model: Model) -> dict[str, npt.NDArray[np.bool_]]:
    """Collect what is known of where maps should lie, by name: lungs, and lesions of phantoms."""
    regions = {}
    if data.lungs.known.any():
        regions["lungs" if data.lungs.kind == "masks" else "box for the lungs"] = data.lungs.array
    if "lesion_mask_path" in data.rows and data.rows["lesion_mask_path"].notna().any():
        at = (model.bundle.network.config.size, model.bundle.resize)
        regions["lesion"] = read_masks(data.rows, "lesion_mask_path", at).array
    return regions


def _spread(labels: pd.Series, number: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose places at random, ``number`` at the most, one of each class after the other as far as there are any."""
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels.iloc[order]
    turn = shuffled.groupby(shuffled).cumcount().to_numpy()
    chosen: npt.NDArray[np.int64] = order[np.argsort(turn, kind="stable")[:number]]
    return chosen


def _shown(table: pd.DataFrame, images: UInt8Array, made: Mapping[str, Maps], per_class: int) -> list[Explained]:
    """Choose the first images of each label, of which there are all kinds of maps if there are of any."""
    chosen = table.groupby("label").head(per_class) if per_class else table.head(0)
    shown = []
    for place, row in zip(chosen.index, chosen.to_dict("records"), strict=True):
        maps = {method: each for method, each in made.items() if place < len(each.array)}
        shown.append(
            Explained(
                name=str(row["image_id"]),
                label=str(row["label"]),
                predicted=str(row["predicted"]),
                probability=float(row[f"prob_{row['predicted']}"]),
                image=images[place],
                maps={TITLES[method]: (each.array[place], each.caution(place)) for method, each in maps.items()},
            )
        )
    return sorted(shown, key=lambda each: each.label)
