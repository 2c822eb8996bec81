"""The audit finds a planted marker and is quiet without one: one seed of what the script does twenty times."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "audit_phantoms.py"


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("marker", [0.9, 0.0])
def test_the_verdict_is_right(shared, tmp_path, marker):
    weights = shared / "weights" / "mobilenet_v2-imagenet-features.safetensors"
    words = ["data.manifest.images=400", f"model.weights={weights}"]
    row = runpy.run_path(str(SCRIPT))["judged"](7, marker, words, str(tmp_path))
    assert row["right"], row
