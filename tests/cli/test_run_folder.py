import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cxrnet.cli.run_folder import discard, refuse_used, shown
from cxrnet.errors import CxrnetError

COMMAND = """
from pathlib import Path
from hydra.core.hydra_config import HydraConfig
from cxrnet.cli.app import entry_point
from cxrnet.workflows.settings import Train

@entry_point(Train)
def main(config):
    (Path(HydraConfig.get().runtime.output_dir) / "run.json").write_text("{}")

main()
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "command.py", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


@pytest.mark.parametrize(("mode", "words"), [("runs", ()), ("sweeps", ("-m", "hydra/sweeper=basic"))])
def test_commands_of_one_second_have_folders_of_their_own(command, tmp_path, mode, words):
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda seed: command(*words, f"seed={seed}"), range(3)))
    assert [each.returncode for each in done] == [0] * 3, done
    folders = list((tmp_path / "outputs" / mode).iterdir())
    assert len(folders) == 3
    overrides = [file for folder in folders for file in folder.rglob("overrides.yaml")]
    assert {file.read_text() for file in overrides} == {f"- seed={seed}\n" for seed in range(3)}


@pytest.mark.parametrize(("mode", "words"), [("run", ()), ("sweep", ("-m", "hydra/sweeper=basic"))])
def test_a_folder_that_was_used_stays_as_it_is(command, tmp_path, mode, words):
    assert command(*words, "seed=1", f"hydra.{mode}.dir=a").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = command(*words, "seed=2", f"hydra.{mode}.dir=a")
    assert (done.returncode, done.stdout) == (2, "")
    hint = f"give another hydra.{mode}.dir=<folder>, or leave it out"
    assert done.stderr == f"error: 'a' holds a {mode} already; {hint}\n"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_place_that_cannot_be_written(command, tmp_path):
    (tmp_path / "file").touch()
    for word, key in (("outputs=file", "outputs"), ("hydra.run.dir=file/a", "hydra.run.dir")):
        done = command(word)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {key}: 'file/")
        assert done.stderr.count("\n") == 1


def test_nothing_is_written_over_and_what_was_written_stays(tmp_path):
    refuse_used(tmp_path, "page.html", "a comparison")
    (tmp_path / "page.html").touch()
    with pytest.raises(CxrnetError, match=r"' holds a comparison already; give another hydra\.run\.dir="):
        refuse_used(tmp_path, "page.html", "a comparison")
    discard(tmp_path)
    assert (tmp_path / "page.html").exists()


def test_a_folder_is_called_from_where_the_person_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "outputs" / "run") == Path("outputs/run")
    assert shown(tmp_path.parent) == tmp_path.parent
