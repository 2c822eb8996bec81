import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import httpx
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import save_bundle
from cxrnet.workflows.serve import check_token, listening

UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def start(bundle, gated, tmp_path):
    save_bundle(gated(bundle)[0], tmp_path / "run" / "bundle")
    running = []

    def call(*words: str) -> tuple[subprocess.Popen, str]:
        command = [sys.executable, "-m", "cxrnet.serve", "bundle=run", "port=0", *words]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=UNBUFFERED)
        running.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Research use" in line:
                return process, "".join(lines)
        raise AssertionError("".join(lines))

    yield call
    for process in running:
        process.kill()
        process.wait()


def address(said: str) -> str:
    return re.search(r"http://\S+", said)[0]


def test_it_serves_until_it_is_told_to_stop_and_again_after_it_was_killed(start, image, tmp_path):
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for end in (signal.SIGKILL, signal.SIGTERM):
        process, said = start()
        base = address(said)
        answer = httpx.post(f"{base}/v1/predict", files={"files": ("a.png", image())}, timeout=30)
        assert answer.status_code == 200
        assert answer.json()["images"][0]["predicted"]
        assert "server" not in answer.headers
        process.send_signal(end)
        assert process.wait(20) == -end
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_where_others_reach_it_a_token_is_made_up(start):
    _, said = start("host=0.0.0.0")
    token = re.search(r"token\s+(\S+)", said)[1]
    base = address(said).replace("0.0.0.0", "127.0.0.1")
    assert httpx.get(f"{base}/v1/model", timeout=30).status_code == 401
    request = urllib.request.Request(f"{base}/v1/model", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["gate"] is True


@pytest.mark.parametrize("token", ["short", "with a space in the middle", "ünicode-ünicode-ünicode"])
def test_a_token_that_will_not_do_is_refused(token):
    with pytest.raises(CxrnetError, match=r"^token: give 16 letters"):
        check_token(token, local=True)
    assert check_token(None, local=True) is None
    assert len(check_token(None, local=False)) >= 32


def test_the_token_of_the_environment_counts(start, monkeypatch):
    monkeypatch.setitem(UNBUFFERED, "CXRNET_TOKEN", "fedcba9876543210")
    _, said = start()
    assert "fedcba9876543210" not in said
    for token, status in (("fedcba9876543210", 200), ("0123456789abcdef", 401)):
        answer = httpx.get(f"{address(said)}/v1/model", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code == status


def test_a_port_that_is_taken_and_a_host_that_is_elsewhere_are_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CxrnetError, match=r"^port: 127\.0\.0\.1:\d+ can't be opened"):
            listening("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(CxrnetError, match=r"^port: 192\.0\.2\.1:0 can't be opened"):
        listening("192.0.2.1", 0)
