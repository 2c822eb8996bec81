"""Maps of what a network looks at, each checked against networks with random weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxrnet.core.console import bar
from cxrnet.data.images.decode import UInt8Array
from cxrnet.evaluation.attribution import FAILS, agreement
from cxrnet.models.attribution import METHODS, FloatArray, randomised
from cxrnet.models.network import Network

TITLES = {"grad_cam": "Grad-CAM", "occlusion": "Occlusion"}
# By how many random networks: two coarse maps may agree by chance, and the mean over several rarely does.
_RANDOM = {"grad_cam": 3, "occlusion": 1}
_AT_ONCE = 16


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
