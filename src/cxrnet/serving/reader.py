"""Image files in memory in, readings out: decoding on all processors, one pass of the network for all that wait."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch

from cxrnet.data.images.decode import ImageError, Picture, UInt8Array
from cxrnet.data.images.reader import Images, resize
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import decide
from cxrnet.evaluation.predictions import softmax
from cxrnet.inference import featurer, judge, rule_of
from cxrnet.models.attribution import grad_cam
from cxrnet.models.bundle import Bundle

_CASES = 5  # training images that are shown
_LARGER = 4  # times that a picture is shown larger than the network sees it
_CAUTION = "a map can look right and mean nothing: python -m cxrnet.explain checks it against random networks"


@dataclass(frozen=True)
class Upload:
    """A file that was sent: its name, for messages, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Reading:
    """What a bundle says of one image.

    Attributes:
        name: of the file.
        predicted: the class; ``None`` where the gate turned the image away.
        probabilities: by class, at the training prevalences; empty where it was turned away.
        deferred: whether the prediction is deferred to a reader.
        turned_away: whether the image isn't like those of the training.
        inverted: whether its negative is.
        picture: as the network sees it, ``(H, W) uint8``.
    """

    name: str
    predicted: str | None
    probabilities: dict[str, float]
    deferred: bool
    turned_away: bool
    inverted: bool
    picture: UInt8Array


@dataclass(frozen=True)
class Case:
    """A training image that is like another one: its class, the cosine of their features, and a thumbnail if kept."""

    label: str
    cosine: float
    thumbnail: UInt8Array | None


@dataclass(frozen=True)
class Look:
    """One image, to be looked at.

    Attributes:
        picture: as the network sees it, four times as large, ``(4 H, 4 W) uint8``.
        heat: what speaks for the class (Grad-CAM), ``(H, W)`` in 0..1; ``None`` where there is no map.
        label: the class.
        note: what must be known of the map, or why there is none.
        cases: the training images that are most like it; none where the bundle has no gate, which knows them.
    """

    picture: UInt8Array
    heat: npt.NDArray[np.float32] | None
    label: str | None
    note: str
    cases: Sequence[Case] = ()


class Reader:
    """A bundle that reads image files.

    Args:
        bundle: predicts.
        device: where its network runs.
        batch_size: images a forward pass.
        max_pixels: of an image, at most.
    """

    def __init__(self, bundle: Bundle, device: torch.device, batch_size: int, max_pixels: int) -> None:
        self.bundle = bundle
        self._judge = judge(bundle, batch_size, device)
        self._features = featurer(bundle, 1, device)
        self._max_pixels = max_pixels
        self._decoders = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def read(self, uploads: Sequence[Upload]) -> list[Reading | ImageError]:
        """Read files, in their order; for one that gives no image, the error. One thread at a time."""
        decoded = list(self._decoders.map(self._decode, uploads))
        good = [place for place, image in enumerate(decoded) if isinstance(image, np.ndarray)]
        answers: list[Reading | ImageError] = [each for each in decoded if isinstance(each, ImageError)]
        if not good:
            return answers
        images = np.stack([image for image in decoded if isinstance(image, np.ndarray)])
        bundle, classes, rule = self.bundle, self.bundle.classes, rule_of(self.bundle)
        judged = self._judge(Images.all_of(images))
        probabilities = softmax(judged.logits)
        predicted = decide(probabilities, classes, rule.points, rule.weights)
        unsure = rule.certainty(probabilities, classes, predicted) < (bundle.defer_below or 0)
        for row, place in enumerate(good):
            away = bool(judged.turned_away[row])
            reading = Reading(
                uploads[place].name,
                None if away else classes[predicted[row]],
                {} if away else dict(zip(classes, probabilities[row].tolist(), strict=True)),
                bool(unsure[row]) and not away,
                away,
                bool(judged.inverted[row]),
                images[row],
            )
            answers.insert(place, reading)
        return answers

    def look(self, upload: Upload, label: str | None) -> Look:
        """Draw one image, and what speaks for a class, or for the predicted one. One thread at a time.

        Raises:
            ImageError: it gives no image.
            CxrnetError: there is no such class.
        """
        bundle = self.bundle
        if label is not None and label not in bundle.classes:
            raise CxrnetError(f"label: '{label}' is no class of the bundle ({', '.join(bundle.classes)})")
        (reading,) = self.read([upload])
        if isinstance(reading, ImageError):
            raise reading
        size = bundle.network.config.size
        shown = resize(self._pixels(upload), (_LARGER * size[0], _LARGER * size[1]), bundle.resize)
        label = label or reading.predicted
        if label is None:
            return Look(shown, None, None, "no class, no map")
        cases = self._cases(reading.picture)
        try:
            heat = grad_cam(bundle.network, reading.picture[None], [bundle.classes.index(label)])[0]
        except CxrnetError as error:
            return Look(shown, None, label, str(error), cases)
        note = _CAUTION if heat.any() else f"nothing in the picture speaks for {label}"
        return Look(shown, heat, label, note, cases)

    def _cases(self, picture: UInt8Array) -> list[Case]:
        """Find the training images that are most like a picture ``(H, W)``."""
        if (gate := self.bundle.gate) is None:
            return []
        places, cosines = gate.most_like(self._features(Images.all_of(picture[None])), _CASES)
        small = gate.thumbnails
        return [
            Case(self.bundle.classes[gate.labels[place]], cosine, None if small is None else small[place])
            for place, cosine in zip(places.tolist(), cosines.tolist(), strict=True)
        ]

    def close(self) -> None:
        """Let the threads that decode go."""
        self._decoders.shutdown(cancel_futures=True)

    def _pixels(self, upload: Upload) -> UInt8Array:
        picture = Picture(BytesIO(upload.data), upload.name)
        if picture.pixels > self._max_pixels:
            raise ImageError("too many pixels", upload.name)
        return picture.decode().pixels

    def _decode(self, upload: Upload) -> UInt8Array | ImageError:
        try:
            return resize(self._pixels(upload), self.bundle.network.config.size, self.bundle.resize)
        except ImageError as error:
            return error
        except (CxrnetError, MemoryError):
            return ImageError("too much memory", upload.name)
