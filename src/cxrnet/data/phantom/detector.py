"""From attenuation to grey: scatter, quantum noise, film curve, collimator, lead letters."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cxrnet.data.phantom.anatomy import Array

GLYPHS = {
    "R": ("1111.", "1...1", "1...1", "1111.", "1.1..", "1..1.", "1...1"),
    "L": ("1....", "1....", "1....", "1....", "1....", "1....", "11111"),
    "A": (".111.", "1...1", "1...1", "11111", "1...1", "1...1", "1...1"),
    "P": ("1111.", "1...1", "1...1", "1111.", "1....", "1....", "1...."),
}


@dataclass(frozen=True)
class Exposure:
    """One exposure's technique and processing; nothing here depends on the disease."""

    scatter: float  # scattered rays for each direct one
    blur: float  # unsharpness of focus, motion and detector, cm
    noise: float  # relative noise of a pixel in free air
    sharpen: float  # strength of the local contrast enhancement
    low: float  # shift of the window's dark end, as a share of its width
    high: float  # shift of the window's bright end, as a share of its width
    gamma: float  # bend of the grey curve; above 1 is darker
    heel: float  # fall of the exposure across the image
    heel_turn: float  # direction of that fall, radians
    blades: tuple[float, float, float, float]  # collimator: shares covered from the left, right, top, bottom
    letter: str  # side marker, '' for none
    letter_place: tuple[float, float, float]  # its column, row and height as shares of the image


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw an exposure at random."""
    blades = np.where(rng.random(4) < 0.16, rng.uniform(0.005, 0.05, 4), 0.0)
    left = rng.random() < 0.6
    return Exposure(
        scatter=rng.uniform(0.2, 0.9),
        blur=rng.uniform(0.2, 0.44) ** 2,
        noise=rng.uniform(0.0008, 0.0035),
        sharpen=rng.uniform(0.2, 1.0),
        low=rng.uniform(-0.1, 0.05),
        high=rng.uniform(-0.06, 0.14),
        gamma=float(np.exp(rng.normal(0.2, 0.18))),
        heel=rng.uniform(0, 0.22),
        heel_turn=rng.uniform(0, 2 * np.pi),
        blades=(float(blades[0]), float(blades[1]), float(blades[2]), float(blades[3])),
        letter=("R" if left else "L") if rng.random() < 0.55 else "",
        letter_place=(
            rng.uniform(0.03, 0.12) if left else rng.uniform(0.86, 0.93),
            rng.uniform(0.03, 0.3),
            rng.uniform(0.05, 0.075),
        ),
    )


def develop(attenuation: Array, field: float, exposure: Exposure, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Develop the radiograph of an attenuation map.

    Args:
        attenuation: line integrals ``(size, size)``, no unit; 0 is free air.
        field: side of the square, cm.
        exposure: technique and processing.
        rng: for the quantum noise.

    Returns:
        ``(size, size) uint8``, bone bright.
    """
    size = len(attenuation)
    pixel = field / size
    direct = ndimage.gaussian_filter(np.exp(-attenuation), exposure.blur / pixel)
    body = np.minimum(direct, 0.25)  # free air scatters nothing
    rays = (direct + exposure.scatter * _wide_blur(body, 5.0 / pixel)) / (1 + exposure.scatter)
    grain = ndimage.gaussian_filter(rng.standard_normal((size, size)), 0.5)
    rays += 2.5 * exposure.noise * np.sqrt(rays) * grain
    film = -np.log(np.maximum(rays, 1e-4))
    slope = np.linspace(-0.5, 0.5, size)
    film += exposure.heel * (np.cos(exposure.heel_turn) * slope[None, :] + np.sin(exposure.heel_turn) * slope[:, None])
    film += exposure.sharpen * (film - _wide_blur(film, 2.5 / pixel))
    centre = film[size // 5 : -size // 5, size // 6 : -size // 6]
    low, high = np.percentile(centre, [2.0, 99.5])
    wide = high - low
    low, high = low + (exposure.low - 0.2) * wide, high + exposure.high * wide
    grey = (film - low) / (high - low)
    grey = 0.5 * (grey + np.sqrt(grey**2 + 0.004))  # toe of the curve
    grey = (1 - np.exp(-2.2 * grey**1.15)) / (1 - np.exp(-2.2))  # shoulder of the curve
    grey = np.clip(grey, 0, 1) ** exposure.gamma
    grey = _collimate(grey, exposure.blades)
    if exposure.letter:
        stamp(grey, exposure.letter, exposure.letter_place)
    return np.asarray(np.rint(255 * np.clip(grey, 0, 1)), dtype=np.uint8)


def stamp(image: Array, text: str, place: tuple[float, float, float]) -> None:
    """Burn letters into an image ``(size, size)`` of greys 0 to 1, in place; ``place`` as in :class:`Exposure`."""
    size = len(image)
    rows = [".".join(GLYPHS[letter][k] for letter in text) for k in range(7)]
    bitmap = np.array([[c == "1" for c in row] for row in rows], dtype=np.float64)
    zoom = max(1.0, place[2] * size / 7)
    drawn = np.clip(ndimage.zoom(np.pad(bitmap, 1), zoom, order=1) * 1.6 - 0.3, 0, 1)
    top, left = int(place[1] * size), int(place[0] * size)
    window = image[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    drawn = drawn[: window.shape[0], : window.shape[1]]
    np.maximum(window, 0.95 * drawn, out=window)


def _wide_blur(image: Array, sigma: float) -> Array:
    """Approximate a Gaussian blur by two box filters, whose cost doesn't grow with its width."""
    width = max(1, round(sigma * 6**0.5))
    return np.asarray(
        ndimage.uniform_filter(ndimage.uniform_filter(image, width, mode="nearest"), width, mode="nearest")
    )


def _collimate(grey: Array, blades: tuple[float, float, float, float]) -> Array:
    """Darken what the collimator covers, with a soft edge."""
    size = len(grey)
    t = (np.arange(size) + 0.5) / size
    left, right, top, bottom = blades

    def shade(lower: float, upper: float) -> Array:
        near = np.clip((t - lower) * size / 2 + 0.5, 0, 1) if lower else np.ones(size)
        far = np.clip((1 - upper - t) * size / 2 + 0.5, 0, 1) if upper else np.ones(size)
        return np.asarray(near * far)

    return grey * (0.03 + 0.97 * shade(left, right)[None, :] * shade(top, bottom)[:, None])
