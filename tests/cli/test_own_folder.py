import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

COMMAND = """
import sys
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from cxrnet.cli.app import entry_point
from cxrnet.workflows.settings import Train

@entry_point(Train)
def main(config):
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "run.json").write_text("{}")
    print(folder.name, config.seed)

main()
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "command.py", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_jobs_of_one_second_have_folders_of_their_own(command, tmp_path):
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda seed: command(f"seed={seed}"), range(5)))
    assert [each.returncode for each in done] == [0] * 5, done
    folders = list((tmp_path / "outputs" / "runs").iterdir())
    assert len(folders) == 5
    seeds = {(folder / ".hydra" / "overrides.yaml").read_text() for folder in folders}
    assert seeds == {f"- seed={seed}\n" for seed in range(5)}


def test_sweeps_of_one_second_too(command, tmp_path):
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda seed: command("-m", f"seed={seed},9"), range(3)))
    assert [each.returncode for each in done] == [0] * 3, done
    folders = list((tmp_path / "outputs" / "sweeps").iterdir())
    assert len(folders) == 3
    assert all(len(list(folder.glob("*/run.json"))) == 2 for folder in folders)


@pytest.mark.parametrize(("mode", "words"), [("run", ()), ("sweep", ("-m",))])
def test_a_folder_that_was_used_stays_as_it_is(command, tmp_path, mode, words):
    assert command(*words, "seed=1", f"hydra.{mode}.dir=a").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = command(*words, "seed=2", f"hydra.{mode}.dir=a")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: 'a' holds a {mode} already; give another hydra.{mode}.dir=<folder>, or leave it out\n"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_place_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").touch()
    for word, key in (("outputs=file", "outputs"), ("hydra.run.dir=file/a", "hydra.run.dir")):
        done = command(word)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {key}: 'file/")
        assert done.stderr.count("\n") == 1
