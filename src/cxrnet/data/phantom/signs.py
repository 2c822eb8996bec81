"""The radiographic signs of the four classes, as the share of the air in a piece of lung that has given way."""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from cxrnet.data.phantom.anatomy import Anatomy, Array, View

CLASSES = ("COVID-19", "Lung Opacity", "Normal", "Viral Pneumonia")
# The patient's frame of a sign: a square of this side (cm) around the middle of the chest, with this many points.
FRAME, POINTS = 36.0, 192


@dataclass(frozen=True)
class Lesion:
    """Signs of one patient in the frame of the chest, maps ``(POINTS, POINTS)``."""

    fill: Array  # share of the air replaced by fluid or tissue, up to 1; slightly below 0 where air is trapped
    extent: Array  # how much a place belongs to the lesion, 0 to 1; half or more is inside

    def seen(self, view: View, breath: float) -> tuple[Array, Array]:
        """Project both maps as an exposure sees them, ``(size, size)``; the lower lung moves with the diaphragm."""
        x, z = view.plane(-1.0)
        z = z - breath * np.clip((z + 6) / 16, 0, 1)
        place = [(v / FRAME + 0.5) * POINTS - 0.5 for v in (z, x)]
        fill, extent = (ndimage.map_coordinates(m, place, order=1) for m in (self.fill, self.extent))
        return fill, extent


def draw_lesion(label: str, anatomy: Anatomy, rng: np.random.Generator) -> Lesion | None:
    """Draw the signs of a class in one patient; None for a normal chest."""
    grid = ((np.arange(POINTS) + 0.5) / POINTS - 0.5) * FRAME
    x, z = np.meshgrid(grid, grid)
    if label == "COVID-19":
        return _ground_glass(anatomy, x, z, rng)
    if label == "Viral Pneumonia":
        return _reticular(x, z, rng)
    if label == "Lung Opacity":
        return _consolidation(anatomy, x, z, rng)
    return None


def texture(rng: np.random.Generator, points: int, longest: float, shortest: float) -> Array:
    """Draw noise of mean 0 and variance 1 with wavelengths between two limits (in points), ``(points, points)``."""
    fy, fx = np.meshgrid(fft.fftfreq(points), fft.rfftfreq(points), indexing="ij")
    f = np.hypot(fx, fy)
    band = np.exp(-((f * shortest) ** 2)) * (1 - np.exp(-((f * longest) ** 2)))
    noise = fft.irfft2(fft.rfft2(rng.standard_normal((points, points))) * band, s=(points, points))
    return np.asarray((noise - noise.mean()) / noise.std())


def _cm(wavelength: float) -> float:
    return wavelength / FRAME * POINTS


def _patch(x: Array, z: Array, wide: float, high: float, lean: float, edge: float = 1.5) -> Array:
    """Draw a soft-edged plateau of half axes wide and high, leaning by an angle; a larger ``edge`` is crisper."""
    u = (x * np.cos(lean) + z * np.sin(lean)) / wide
    v = (z * np.cos(lean) - x * np.sin(lean)) / high
    return np.asarray(np.exp(-((u * u + v * v) ** edge)))


def _ground_glass(anatomy: Anatomy, x: Array, z: Array, rng: np.random.Generator) -> Lesion:
    """Draw COVID-19: hazy patches in both lungs, along the chest wall, most of them in the lower zones."""
    warp = texture(rng, POINTS, _cm(6), _cm(2.2))
    clear = np.ones_like(x)
    for side in (-1, 1):
        for _ in range(rng.integers(2, 5)):
            level = rng.triangular(-2.5, 6.5, 9.5)
            out = rng.uniform(0.66, 0.9) * float(anatomy.half_width(np.array(level)))
            wide, high = rng.uniform(1.8, 2.9), rng.uniform(2.4, 4.4)
            patch = _patch(x - side * out + 0.35 * warp, z - level + 0.35 * warp, wide, high, -side * 0.12)
            clear *= 1 - rng.uniform(0.6, 1.0) * patch
    haze = 1 - clear
    grain = np.clip(1 + 0.25 * texture(rng, POINTS, _cm(2.4), _cm(1.1)), 0.3, 1.8)
    return Lesion(rng.uniform(0.38, 0.55) * haze * grain, haze)


def _reticular(x: Array, z: Array, rng: np.random.Generator) -> Lesion:
    """Draw viral pneumonia: a net of thickened septa throughout both lungs, densest around the hila."""
    lines = np.zeros_like(x)
    for _ in range(2):
        lines = np.maximum(lines, np.exp(-((texture(rng, POINTS, _cm(4.5), _cm(1.7)) / 0.34) ** 2)))
    hila = sum(_patch(x - side * 5.0, z - 0.5, 5.5, 8.0, 0.0) for side in (-1, 1))
    everywhere = 0.45 + 0.55 * hila + 0.2 * texture(rng, POINTS, _cm(14), _cm(5))
    share = np.clip(everywhere, 0, 1.2)
    # A little more air between the lines: the sign is a pattern, not a brightness that a thumbnail would show.
    fill = rng.uniform(0.22, 0.32) * share * (lines - 0.08)
    return Lesion(fill, np.clip(share * 1.6, 0, 1))


def _consolidation(anatomy: Anatomy, x: Array, z: Array, rng: np.random.Generator) -> Lesion:
    """Draw lung opacity: one dense focus with an irregular edge, crossed by bronchi that still hold air."""
    side, level = rng.choice([-1, 1]), rng.uniform(-7.5, 5.5)
    out = rng.uniform(0.5, 0.72) * float(anatomy.half_width(np.array(level)))
    warp, other = texture(rng, POINTS, _cm(8), _cm(2.5)), texture(rng, POINTS, _cm(8), _cm(2.5))
    wide, high = rng.uniform(3.0, 4.6), rng.uniform(3.2, 5.2)
    focus = _patch(x - side * out + 0.55 * warp, z - level + 0.55 * other, wide, high, rng.uniform(-0.5, 0.5), 2.6)
    bronchi = np.exp(-((texture(rng, POINTS, _cm(4.5), _cm(1.3)) / 0.16) ** 2))
    return Lesion(rng.uniform(0.76, 0.93) * focus * (1 - 0.55 * bronchi * focus), focus)
