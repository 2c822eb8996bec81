"""Soft tissue and air of the thorax as maps of path lengths, the vessels, and the signs of disease."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cxrnet.data.phantom.anatomy import Anatomy, Array, Cloud, View

CLASSES = ("COVID-19", "Lung Opacity", "Normal", "Viral Pneumonia")
# The patient's frame of a sign: a square of this side (cm) around the middle of the chest, with this many points.
_FRAME, _POINTS = 36.0, 192

# First directions (sideways, forwards, down) and radii (cm) of one side, upper lobe to lower lobe.
_STEMS = np.array(
    [
        *([0.45, -0.2, -1.0], [0.75, 0.35, -0.9], [1.0, 0.3, -0.25], [1.0, -0.4, 0.25]),
        *([0.7, 0.5, 0.75], [0.35, -0.1, 1.0], [0.5, -0.5, 1.0], [0.15, -0.5, 1.0]),
    ]
)
_STEM_RADIUS = np.array([0.3, 0.28, 0.22, 0.24, 0.34, 0.46, 0.38, 0.32])
_GENERATIONS, _BRANCH = 6, 14  # of branches, and points along one
# Vessels of about one width are blurred together: upper limits of the radius classes, cm.
WIDTHS = (0.12, 0.25, 0.6)


@dataclass(frozen=True)
class _Paths:
    """Maps ``(size, size)`` of one exposure, lengths in cm."""

    body: Array  # way through the body
    lung: Array  # way through both lungs
    gas: Array  # way through air outside the lungs: windpipe, main bronchi, stomach
    mask: NDArray[np.bool_]  # lung fields as outlined by hand: without heart, mediastinum and behind the diaphragm


def organ_paths(anatomy: Anatomy, view: View, breath: float) -> _Paths:
    """Compute the path lengths of one exposure; ``breath`` (cm) is how far the diaphragm stands below the mean."""
    x, z = view.plane(0.0)
    lateral, deep = anatomy.half_width(z), anatomy.half_depth(z)
    cage = 2 * deep * _arc(x / lateral)
    heart = _heart(anatomy, view, breath)
    half = anatomy.mediastinum + 2.0 * _step(anatomy.apex + 1.6 - z, 5.0)  # it opens towards the neck
    column = 1.5 * deep * _arc((x - anatomy.midline(z) + 0.15) / half)
    solid = np.maximum(np.maximum(heart, column), _great_vessels(anatomy, view))
    dome = np.minimum(_diaphragm(anatomy, x, z, breath), cage)
    floor = anatomy.base + breath
    lung = np.clip(cage - solid - dome, 0, None) * _step(floor - z, 0.4)
    mask = (lung > 0.82 * cage) & (cage > 1.5)
    return _Paths(_body(anatomy, view, x, z), lung, _airways(anatomy, view) + _stomach(anatomy, view, breath), mask)


def _arc(u: Array) -> Array:
    """Compute the chord of the unit circle at distance u from its centre, as a share of the diameter."""
    return np.asarray(np.sqrt(np.clip(1 - u * u, 0, None)))


def _step(u: Array, width: float) -> Array:
    """Step from 0 below to 1 above zero, over about ``width``."""
    return np.asarray(1 / (1 + np.exp(-np.clip(4 * u / width, -40, 40))))


def _ellipsoid(x: Array, z: Array, wide: float, high: float, depth: float) -> Array:
    return np.asarray(depth * 2 * np.sqrt(np.clip(1 - (x / wide) ** 2 - (z / high) ** 2, 0, None)))


def _heart(anatomy: Anatomy, view: View, breath: float) -> Array:
    """Draw the left ventricle, the right atrium and the trunk of the lung artery."""
    x, z = view.plane(2.5)
    size, low = anatomy.heart, anatomy.base - anatomy.dome - anatomy.left_lower * 0.5 + breath
    cosine, sine = np.cos(anatomy.heart_turn), np.sin(anatomy.heart_turn)
    dx, dz = x - 2.4 * size, z - (low - 2.6 * size + 0.9)
    ventricle = _ellipsoid(dx * cosine + dz * sine, dz * cosine - dx * sine, 7.4 * size, 4.7 * size, 5.0 * size)
    atrium = _ellipsoid(x - 0.2 * size, z - (low - 3.2 * size), 4.2 * size, 6.2 * size, 4.6 * size)
    trunk = _ellipsoid(x - 1.6 * size, z - (low - 7.6 * size), 2.6 * size, 4.2 * size, 3.6 * size)
    return np.maximum(np.maximum(ventricle, atrium), trunk)


def _great_vessels(anatomy: Anatomy, view: View) -> Array:
    """Draw the aortic arch and the descending aorta on the left of the spine, the upper vena cava on the right."""
    x, z = view.plane(-3.0)
    arch = _ellipsoid(x - 1.6, z + 5.6, anatomy.knob + 0.5, anatomy.knob, 4.5)
    descending = 2 * 1.2 * _arc((x - 1.6 - 0.05 * (z + 5)) / 1.3) * _step(z + 5.6, 1.0)
    cava_x, cava_z = view.plane(2.0)
    cava = 6.0 * _arc((cava_x + 1.7) / 1.35) * _step(cava_z + 9, 2.0) * _step(3 - cava_z, 3.0)
    return np.maximum(np.maximum(arch, descending), cava)


def _diaphragm(anatomy: Anatomy, x: Array, z: Array, breath: float) -> Array:
    """Compute the path that the two domes take from the chest; below their base nothing is left."""
    floor = anatomy.base + breath
    half = anatomy.half_width(np.array(floor)) / 2
    taken = np.zeros_like(x)
    for side, lower in ((-1.0, 0.0), (1.0, anatomy.left_lower)):
        rise = np.clip((floor - z) / (anatomy.dome - lower), 0, None)
        across = (x - side * half * 0.86) / (half * 1.16)
        dome = 2 * 0.99 * anatomy.depth * np.sqrt(np.clip(1 - np.abs(across) ** 2.3 - rise**2, 0, None))
        taken = np.maximum(taken, dome)
    return taken


def _body(anatomy: Anatomy, view: View, x: Array, z: Array) -> Array:
    """Draw trunk, shoulders, neck, arms and breasts."""
    out, level, fat = np.abs(x), anatomy.shoulder, anatomy.fat
    half = anatomy.width + 1.35 + 0.7 * fat + 0.12 * np.clip(z, -10, 20)
    thick = (anatomy.depth + 1.2 + 0.55 * fat) * (0.66 + 0.34 * _step(z + 9, 14.0))
    trunk = 2 * thick * np.sqrt(_arc((out / half) ** 2)) * _step(z - level + 2, 3.0)
    inwards = np.clip(anatomy.width + 2 - out, 0, None)
    top = level - 3.4 - inwards * (0.35 + 0.036 * inwards)  # the slope from the neck to the shoulder
    end = anatomy.width + 6.2 + 0.5 * fat
    under = np.sqrt(np.clip((z - top) / 7, 0, 1)) * _step(level + 9 - z, 6.0)
    shoulder = (9.2 + fat) * under * _arc(x / end)
    neck = 11.2 * _arc(x / (5.2 + 0.3 * fat)) * _step(level - z, 6.0)
    # The upper arms, held off the body: cylinders that run out of the image.
    radius = 4.0 + 0.45 * fat
    dx, dz = out - anatomy.width - 2.6, z - level - 0.5
    along = np.clip(0.3162 * dx + 0.9487 * dz, 0, None)  # a unit vector, so that the distance follows from it
    arm = 2 * np.sqrt(np.clip(radius**2 - dx * dx - dz * dz + along * along, 0, None))
    # The fourth power sum runs the parts into each other without a crease and without adding them up.
    parts = np.stack([trunk, shoulder, neck, arm])
    body = np.asarray(np.sqrt(np.sqrt(((parts * parts) ** 2).sum(axis=0))))
    x, z = view.plane(12.0)
    size = anatomy.breast
    wide, high = 4.6 + 1.8 * size, 4.2 + 2.2 * size
    dx, dz = np.abs(x) - 0.62 * anatomy.width, z - 6.0 - 1.6 * size
    upper = np.where(dz < 0, dz * 0.62, dz)  # the upper slope runs out, the lower fold is an edge
    return body + 4.2 * size * np.clip(1 - (dx / wide) ** 2 - (upper / high) ** 2, 0, None) ** 0.8


def _airways(anatomy: Anatomy, view: View) -> Array:
    """Draw the windpipe, filled with air, and the two main bronchi."""
    x, z = view.plane(-1.0)
    fork = -3.6
    pipe = 1.7 * _arc((x + 0.25 - anatomy.midline(z) + 0.03 * (z - fork)) / 0.9) * _step(fork + 0.5 - z, 0.8)
    dx, dz = x + 0.25, z - fork
    for slant, length in ((-0.5, 4.2), (0.95, 4.6)):
        steep = np.hypot(1, slant)
        along, off = (dz + slant * dx) / steep, (dx - slant * dz) / steep
        pipe = np.maximum(pipe, 1.25 * _arc(off / 0.62) * _step(along, 0.6) * _step(length - along, 1.2))
    return pipe


def _stomach(anatomy: Anatomy, view: View, breath: float) -> Array:
    """Draw the gas under the left dome; standing, it lies on a fluid level."""
    if anatomy.bubble < 0.7:
        return np.zeros((view.size, view.size))
    x, z = view.plane(0.0)
    r = anatomy.bubble
    top = anatomy.base - anatomy.dome + anatomy.left_lower + breath + 0.7
    gas = _ellipsoid(x - 6.2, z - top - r, 1.5 * r, r, 1.3 * r)
    return gas * _step(top + 1.25 * r - z, 0.25) if anatomy.fluid else gas


def vessels(anatomy: Anatomy, rng: np.random.Generator) -> list[Cloud]:
    """Grow the vessels of both lungs, one cloud for each width class of ``WIDTHS``."""
    points, radii, volumes = (
        np.concatenate(part) for part in zip(*(_tree(anatomy, side, rng) for side in (-1.0, 1.0)), strict=True)
    )
    kind = np.digitize(radii, WIDTHS[:-1])
    return [Cloud(points[kind == k].T.copy(), volumes[kind == k]) for k in range(len(WIDTHS))]


def _tree(anatomy: Anatomy, side: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Grow one lung's tree; returns points ``(N, 3)``, radii and volumes ``(N,)``."""
    scale = anatomy.width / 13.6
    heading = _STEMS * [side, 1, 1] + rng.normal(0, 0.12, _STEMS.shape)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    hilum = np.array([side * 3.3, 0.0, -0.6 if side > 0 else 0.4]) * scale
    place = hilum + rng.normal(0, 0.25, _STEMS.shape)
    radius = _STEM_RADIUS * rng.uniform(0.85, 1.15, len(_STEMS))
    length = 2.6 * scale
    along = (np.arange(_BRANCH) + 0.5) / _BRANCH
    points, radii, volumes = [], [], []
    for _ in range(_GENERATIONS):
        reach = length * rng.uniform(0.7, 1.3, len(place))
        bend = rng.normal(0, 0.16, heading.shape)
        path = heading[:, None] * along[:, None] + bend[:, None] * (along**2)[:, None]
        branch = place[:, None] + path * reach[:, None, None]
        width = radius[:, None] * (1 - 0.2 * along)
        points.append(branch.reshape(-1, 3))
        radii.append(width.ravel())
        volumes.append((np.pi * width**2 * reach[:, None] / _BRANCH).ravel())
        heading = heading + bend
        place, heading = np.repeat(place + heading * reach[:, None], 2, 0), np.repeat(heading, 2, 0)
        spread = rng.normal(0, 0.42, heading.shape)
        spread[1::2] = -spread[::2] * 0.7
        heading = heading + spread
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        radius = np.repeat(radius, 2) * rng.uniform(0.62, 0.86, 2 * len(radius))
        length *= 0.84
    return np.concatenate(points), np.concatenate(radii), np.concatenate(volumes)


@dataclass(frozen=True)
class _Lesion:
    """Signs of one patient in the frame of the chest, maps ``(_POINTS, _POINTS)``."""

    fill: Array  # share of the air replaced by fluid or tissue, up to 1; slightly below 0 where air is trapped
    extent: Array  # how much a place belongs to the lesion, 0 to 1; half or more is inside

    def seen(self, view: View, breath: float) -> tuple[Array, Array]:
        """Project both maps as an exposure sees them, ``(size, size)``; the lower lung moves with the diaphragm."""
        x, z = view.plane(-1.0)
        z = z - breath * np.clip((z + 6) / 16, 0, 1)
        place = [(v / _FRAME + 0.5) * _POINTS - 0.5 for v in (z, x)]
        fill, extent = (ndimage.map_coordinates(m, place, order=1) for m in (self.fill, self.extent))
        return fill, extent


def draw_lesion(label: str, anatomy: Anatomy, rng: np.random.Generator) -> _Lesion | None:
    """Draw the signs of a class in one patient; None for a normal chest."""
    grid = ((np.arange(_POINTS) + 0.5) / _POINTS - 0.5) * _FRAME
    x, z = np.meshgrid(grid, grid)
    if label == "COVID-19":
        return _ground_glass(anatomy, x, z, rng)
    if label == "Viral Pneumonia":
        return _reticular(x, z, rng)
    if label == "Lung Opacity":
        return _consolidation(anatomy, x, z, rng)
    return None


def _texture(rng: np.random.Generator, longest: float, shortest: float) -> Array:
    """Draw noise of mean 0 and variance 1 with wavelengths between two limits (cm) in the frame."""
    longest, shortest = longest / _FRAME * _POINTS, shortest / _FRAME * _POINTS
    fy, fx = np.meshgrid(fft.fftfreq(_POINTS), fft.rfftfreq(_POINTS), indexing="ij")
    f = np.hypot(fx, fy)
    band = np.exp(-((f * shortest) ** 2)) * (1 - np.exp(-((f * longest) ** 2)))
    noise = fft.irfft2(fft.rfft2(rng.standard_normal((_POINTS, _POINTS))) * band, s=(_POINTS, _POINTS))
    return np.asarray((noise - noise.mean()) / noise.std())


def _patch(x: Array, z: Array, wide: float, high: float, lean: float, edge: float = 1.5) -> Array:
    """Draw a soft-edged plateau of half axes wide and high, leaning by an angle; a larger ``edge`` is crisper."""
    u = (x * np.cos(lean) + z * np.sin(lean)) / wide
    v = (z * np.cos(lean) - x * np.sin(lean)) / high
    return np.asarray(np.exp(-((u * u + v * v) ** edge)))


def _ground_glass(anatomy: Anatomy, x: Array, z: Array, rng: np.random.Generator) -> _Lesion:
    """Draw COVID-19: hazy patches in both lungs, along the chest wall, most of them in the lower zones."""
    warp = _texture(rng, 6, 2.2)
    clear = np.ones_like(x)
    for side in (-1, 1):
        for _ in range(rng.integers(2, 5)):
            level = rng.triangular(-2.5, 6.5, 9.5)
            out = rng.uniform(0.66, 0.9) * float(anatomy.half_width(np.array(level)))
            wide, high = rng.uniform(1.8, 2.9), rng.uniform(2.4, 4.4)
            patch = _patch(x - side * out + 0.35 * warp, z - level + 0.35 * warp, wide, high, -side * 0.12)
            clear *= 1 - rng.uniform(0.6, 1.0) * patch
    haze = 1 - clear
    grain = np.clip(1 + 0.25 * _texture(rng, 2.4, 1.1), 0.3, 1.8)
    return _Lesion(rng.uniform(0.38, 0.55) * haze * grain, haze)


def _reticular(x: Array, z: Array, rng: np.random.Generator) -> _Lesion:
    """Draw viral pneumonia: a net of thickened septa throughout both lungs, densest around the hila."""
    lines = np.zeros_like(x)
    for _ in range(2):
        lines = np.maximum(lines, np.exp(-((_texture(rng, 4.5, 1.7) / 0.34) ** 2)))
    hila = sum(_patch(x - side * 5.0, z - 0.5, 5.5, 8.0, 0.0) for side in (-1, 1))
    everywhere = 0.45 + 0.55 * hila + 0.2 * _texture(rng, 14, 5)
    share = np.clip(everywhere, 0, 1.2)
    # A little more air between the lines: the sign is a pattern, not a brightness that a thumbnail would show.
    fill = rng.uniform(0.22, 0.32) * share * (lines - 0.08)
    return _Lesion(fill, np.clip(share * 1.6, 0, 1))


def _consolidation(anatomy: Anatomy, x: Array, z: Array, rng: np.random.Generator) -> _Lesion:
    """Draw lung opacity: one dense focus with an irregular edge, crossed by bronchi that still hold air."""
    side, level = rng.choice([-1, 1]), rng.uniform(-7.5, 5.5)
    out = rng.uniform(0.5, 0.72) * float(anatomy.half_width(np.array(level)))
    warp, other = _texture(rng, 8, 2.5), _texture(rng, 8, 2.5)
    wide, high = rng.uniform(3.0, 4.6), rng.uniform(3.2, 5.2)
    focus = _patch(x - side * out + 0.55 * warp, z - level + 0.55 * other, wide, high, rng.uniform(-0.5, 0.5), 2.6)
    bronchi = np.exp(-((_texture(rng, 4.5, 1.3) / 0.16) ** 2))
    return _Lesion(rng.uniform(0.76, 0.93) * focus * (1 - 0.55 * bronchi * focus), focus)
