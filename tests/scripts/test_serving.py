"""The scripts that put load on the server, and what is broken, on a small bundle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxrnet.models.bundle import save_bundle

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("serve_load", ("clients=3", "seconds=2"), "0 errors"),
        ("serve_fuzz", ("requests=120",), "an image after that: 200"),
    ],
)
def test_the_server_stands_it(bundle, gated, draw, tmp_path, script, words, said):
    save_bundle(gated(bundle)[0], tmp_path / "run" / "bundle")
    draw(tmp_path / "xrays", images=4)
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), "bundle=run", "images=xrays", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
