"""What an audit is of: the run's own images, where the backbone was left as it was, or the test images alone."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from cxrnet.workflows.audit import _is_frozen, _limited
from cxrnet.workflows.maps import _spread


@pytest.mark.parametrize(
    ("phases", "frozen", "why"),
    [
        ([{"trainable": "head"}], True, ""),
        ([{"trainable": "head"}, {"trainable": {"last": 20}}], False, "the run trained the backbone"),
        ([], False, "it isn't known whether"),
    ],
)
def test_only_a_frozen_backbone_knows_no_image(tmp_path, phases, frozen, why):
    (tmp_path / "run_facts.json").write_text(json.dumps({"phases": phases}))
    found, said = _is_frozen(SimpleNamespace(folder=tmp_path))
    assert found == frozen
    assert said.startswith(why)
    assert _is_frozen(SimpleNamespace(folder=None))[0] is False


def test_a_limit_takes_test_images_first_and_is_said():
    rows = pd.DataFrame({"image_id": [f"{row:03}" for row in range(100)]})
    few, (note,) = _limited(rows, {"limit": 30, "seed": 0}, {f"{row:03}" for row in range(80, 100)})
    assert len(few) == 30
    assert set(rows["image_id"][80:]) <= set(few["image_id"])
    assert few["image_id"].is_monotonic_increasing
    assert note == "30 of 100 images, drawn at random, are looked at (limit)"
    everything, notes = _limited(rows, {"limit": None, "seed": 0})
    assert (len(everything), notes) == (100, [])


def test_maps_are_of_all_classes():
    labels = pd.Series(["common"] * 90 + ["rare"] * 4)
    chosen = labels.iloc[_spread(labels, 16, 0)]
    assert chosen.value_counts().to_dict() == {"common": 12, "rare": 4}
    assert set(chosen.iloc[:2]) == set(chosen.iloc[6:8]) == {"common", "rare"}  # also of the first few
