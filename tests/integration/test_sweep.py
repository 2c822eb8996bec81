"""A real sweep, written as an experiment: it needs no ``-m``."""

import subprocess
import sys
from pathlib import Path

EXPERIMENT = """
# @package _global_
data:
  size: [32, 32]
  manifest:
    images: 48
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      loss.class_weights: none,balanced,wrong
"""


def test_the_reports_of_a_sweep_come_out_side_by_side_though_a_job_failed(tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "small.yaml").write_text(EXPERIMENT.lstrip())
    line = ["--config-dir", "conf", "experiment=small", "model=custom_cnn", "trainer=debug", "tracking=none"]
    command = [sys.executable, "-m", "cxrnet.train", *line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (sweep,) = (path for path in (tmp_path / "outputs" / "sweeps").iterdir() if path.is_dir())
    text = (Path(sweep) / "classification_reports.txt").read_text()
    assert text.splitlines()[0].split() == ["class_weights=none", "class_weights=balanced"]
    assert text.splitlines()[-1].startswith("no result: class_weights=wrong (loss.class_weights: 'wrong' is not known")
    assert text in done.stdout
