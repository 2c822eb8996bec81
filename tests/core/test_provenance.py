import re
import subprocess
import sys

import torch

from cxrnet.core.machine import git_revision, package_versions


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_versions_name_what_decides_a_result():
    versions = package_versions()
    assert versions["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert torch.__version__.startswith(versions["torch"].split("+")[0])
    assert {"cxrnet", "torchvision", "lightning", "mlflow", "numpy", "scikit-learn"} <= set(versions)


def test_a_revision_tells_changed_files_from_new_ones(tmp_path, monkeypatch):
    assert git_revision(tmp_path) == {}
    git(tmp_path, "init", "-b", "trunk")
    assert git_revision(tmp_path) == {}  # no commit yet
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "result.txt").write_text("a new file")
    revision = git_revision(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", revision["commit"])
    assert (revision["branch"], revision["dirty"]) == ("trunk", False)
    (tmp_path / "code.py").write_text("2")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a git hook
    assert git_revision(tmp_path) == {**revision, "dirty": True}
