"""The wheel, as a user has it who owns no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run a command and return what it printed; a failure shows it all."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation and dependencies, so without a network: hatchling is part of the test extra.
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, REPOSITORY, folder=folder)
    (built,) = folder.glob("cxrnet-*.whl")
    return built


def test_wheel_holds_all_that_is_no_code(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {f"cxrnet/{path.relative_to(REPOSITORY).as_posix()}" for path in REPOSITORY.glob("conf/**/*.yaml")}
    assert configs | {"cxrnet/reporting/templates/report.html.j2", "cxrnet/py.typed"} <= set(names)
    assert "cxrnet/conf/train.yaml" in configs
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cxrnet", "hydra_plugins"}
    assert not [name for name in names if "benchmark" in name]  # it is a script of the checkout


def test_installed_wheel_trains_in_an_empty_folder(wheel, tmp_path):
    site, folder = tmp_path / "site", tmp_path / "empty"
    folder.mkdir()
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", site, wheel, folder=folder)

    # PYTHONPATH comes before site-packages, where the checkout may be installed too.
    where = "import cxrnet.cli.app as app; print(app.__file__, app.config_folder(), sep='\\n')"
    places = run(sys.executable, "-c", where, folder=folder, PYTHONPATH=str(site)).splitlines()
    assert places == [str(site / "cxrnet/cli/app.py"), str(site / "cxrnet/conf")]

    options = ("trainer=debug", "tracking=none", "model=custom_cnn", "data.manifest.images=48")
    said = run(sys.executable, "-m", "cxrnet.train", *options, folder=folder, PYTHONPATH=str(site))
    (report,) = folder.glob("outputs/runs/*/report.html")
    assert "custom_cnn" in report.read_text(encoding="utf-8")
    assert report.name in said
    assert {path.name for path in folder.iterdir()} == {"data", "outputs"}
