import shutil
from functools import partial

import pandas as pd

from cxrnet.data.sources.folder import folder
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.single_run import state_data

CONFIG = {"folds": None, "folds_by": "patient", "loss": {"class_weights": None}}


def test_duplicates_with_different_labels_are_said_and_listed_with_their_run(make_data, draw, tmp_path, capsys):
    root = draw(tmp_path / "set")
    for name in ("Normal", "Viral Pneumonia"):
        shutil.copy(root / "Covid" / "00.png", root / name / "same.png")
    shutil.copy(root / "Covid" / "01.png", root / "Covid" / "again.png")
    data = make_data(manifest=partial(folder, root))
    warnings = state_data(data, CONFIG, TrackedRun(tmp_path), tmp_path, resumed=False)
    (said,) = (text for text in warnings if "different labels" in text)
    assert said.startswith("3 images are duplicates")
    assert said in capsys.readouterr().out
    listed = pd.read_csv(tmp_path / "label_conflicts.csv")
    assert listed["label"].tolist() == ["Covid", "Normal", "Viral Pneumonia"]
    assert listed["split"].nunique() == 1


def test_without_them_nothing_is_written(make_data, tmp_path):
    warnings = state_data(make_data(), CONFIG, TrackedRun(tmp_path), tmp_path, resumed=False)
    assert [text.split(";")[0] for text in warnings] == ["patients are not known"]
    assert not (tmp_path / "label_conflicts.csv").exists()
