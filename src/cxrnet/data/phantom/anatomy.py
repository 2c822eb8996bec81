"""A patient: the few numbers that make one thorax differ from another, and the shape of the rib cage."""

from dataclasses import dataclass

import numpy as np

from cxrnet.data.phantom.geometry import Array


@dataclass(frozen=True)
class Anatomy:
    """One patient's thorax; lengths in cm."""

    width: float
    """Half of the inner width of the chest at its widest level."""
    depth: float
    """Half of the inner depth of the chest."""
    apex: float
    """Level (z) of the lungs' tips."""
    base: float
    """Level (z) of the costophrenic angles in middle inspiration."""
    dome: float
    """Height of the right half of the diaphragm over its base."""
    left_lower: float
    """How much lower the left half of the diaphragm stands."""
    fat: float
    """Soft tissue around the rib cage."""
    breast: float
    """Size of the breasts, 0 for none, about 1 for full ones."""
    heart: float
    """Size of the heart, 1 for the mean."""
    heart_turn: float
    """Angle of the heart's long axis to the horizontal, radians."""
    knob: float
    """Radius of the aortic arch."""
    mediastinum: float
    """Half of the width of the upper mediastinum."""
    shoulder: float
    """Level (z) of the shoulder joints."""
    bubble: float
    """Radius of the gas in the stomach."""
    fluid: bool
    """Whether that gas stands on a fluid level."""
    rib_slope: float
    """Slope of the ribs, 1 for the mean."""
    rib_size: float
    """Height of the ribs, 1 for the mean."""
    bone: float
    """Density of the bones, 1 for the mean."""
    scoliosis: float
    """Sideways bow of the spine."""

    def half_width(self, z: Array) -> Array:
        """Inner half width of the rib cage at level z."""
        widest = 8.0
        up = np.clip((widest - z) / (widest - self.apex), 0, 1)
        down = np.clip((z - widest) / 6, 0, 2)
        tip = 4.2
        return np.asarray(tip + (self.width - tip) * (1 - up**2.3) ** 0.55 - 0.35 * down**2)

    def half_depth(self, z: Array) -> Array:
        """Inner half depth of the rib cage at level z; nothing is left above the tips of the lungs."""
        up = np.clip((8.0 - z) / (8.0 - self.apex), 0, 1)
        return np.asarray(self.depth * (1 - up**4) ** 0.5)

    def midline(self, z: Array) -> Array:
        """Sideways place of the spine at level z."""
        return np.asarray(self.scoliosis * np.cos(np.pi * (z - 1) / 18))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient at random; nothing here depends on the disease."""
    woman = rng.random() < 0.5
    size = rng.normal(0.96 if woman else 1.03, 0.035)
    return Anatomy(
        width=13.6 * size * rng.uniform(0.95, 1.05),
        depth=9.2 * size * rng.uniform(0.92, 1.1),
        apex=-13.0 * size,
        base=12.6 * size + rng.uniform(-0.8, 0.8),
        dome=rng.uniform(3.6, 5.2),
        left_lower=rng.uniform(0.3, 1.6),
        fat=rng.gamma(4.0, 0.45) + 0.8,
        breast=rng.uniform(0.25, 1.15) if woman else max(0.0, rng.uniform(-0.3, 0.25)),
        heart=size * rng.uniform(0.88, 1.14),
        heart_turn=rng.uniform(0.55, 0.95),
        knob=rng.uniform(1.2, 1.9),
        mediastinum=rng.uniform(2.1, 2.8),
        shoulder=-10.6 * size + rng.uniform(-0.8, 0.8),
        bubble=rng.uniform(0.0, 2.6),
        fluid=bool(rng.random() < 0.6),
        rib_slope=rng.uniform(0.8, 1.2),
        rib_size=rng.uniform(0.88, 1.15),
        bone=rng.uniform(0.75, 1.2),
        scoliosis=rng.normal(0, 0.25),
    )
