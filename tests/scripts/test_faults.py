import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPTS))
    import faults

    yield faults
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def upstream():
    """A server that answers with what was sent to it, and keeps it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.seen.append(content := self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.seen = []
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    yield listener
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def proxy(script, upstream):
    from fault_groups.proxy import proxy_before

    with proxy_before(f"http://127.0.0.1:{upstream.server_port}") as proxy:
        yield proxy


def post(proxy, path="/api/runs/update", content=b"hello"):
    with urllib.request.urlopen(urllib.request.Request(proxy.uri + path, content), timeout=5) as answer:
        return answer.read()


def fault(kind, *settings):
    from fault_groups.proxy import Fault

    return Fault(kind, *settings)


def test_the_proxy_passes_on_what_is_sent_and_answered(proxy, upstream):
    assert post(proxy, content=b"x" * 1_000_000) == b"x" * 1_000_000
    assert len(upstream.seen) == 1
    assert proxy.hit == 0


def test_a_500_reaches_the_chosen_paths_only_and_the_server_sees_nothing(proxy, upstream):
    proxy.fault = fault("error", "runs/create")
    with pytest.raises(urllib.error.HTTPError, match="500"):
        post(proxy, "/api/runs/create")
    assert upstream.seen == []
    assert post(proxy) == b"hello"
    assert proxy.hit == 1


def test_an_answer_is_dropped_after_the_server_has_done_the_write(proxy, upstream):
    proxy.fault = fault("drop")
    with pytest.raises(OSError, match="closed connection"):
        post(proxy)
    assert upstream.seen == [b"hello"]


def test_an_answer_is_late_and_no_longer_once_the_fault_is_over(proxy):
    proxy.fault = fault("delay", "", 0.3)
    began = time.monotonic()
    assert post(proxy) == b"hello"
    assert time.monotonic() - began >= 0.3
    proxy.fault = fault("delay", "", 60)
    threading.Timer(0.2, lambda: setattr(proxy, "fault", None)).start()
    assert post(proxy) == b"hello"
    assert time.monotonic() - began < 5


def test_a_server_that_is_down_comes_back_at_its_address(proxy):
    proxy.fault = fault("refuse")
    with pytest.raises(urllib.error.URLError, match="refused"):
        post(proxy)
    proxy.fault = None
    assert post(proxy) == b"hello"


@pytest.fixture
def whole(script):
    from fault_groups.ledger import Ledger

    points = Counter({("val/loss", 1, "0.5"): 1, ("val/loss", 2, "nan"): 1})
    files = {"tables/metrics.json": "a", "roc.png": ""}
    return Ledger(["FINISHED"], points, {"seed": "0"}, {"who"}, 1, files, ["w"], True)


def test_what_a_resumed_run_has_more_is_no_loss(whole):
    assert replace(whole, tags={"who", "drift"}, files={**whole.files, "more.yaml": ""}).lost_against(whole) == []


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"statuses": []}, ["no run in MLflow"]),
        ({"statuses": ["FINISHED", "RUNNING"]}, ["2 MLflow runs", "status RUNNING"]),
        ({"points": Counter({("val/loss", 1, "0.5"): 1})}, ["1 of 2 metric values missing"]),
        (
            {"points": Counter({("val/loss", 1, "0.5"): 2, ("val/loss", 2, "nan"): 1, ("val/loss", 2, "3.0"): 1})},
            ["2 metric values twice"],
        ),
        ({"points": Counter()}, ["no metrics"]),
        ({"params": {}}, ["1 parameters missing (seed)"]),
        (
            {"files": {"tables/metrics.json": "b"}},
            ["1 artifacts missing (roc.png)", "another tables/metrics.json in MLflow"],
        ),
        ({"models": ["w", "w"]}, ["2 logged models"]),
        ({"models": [""]}, ["another logged model"]),
        ({"linked": False}, ["no link to the logged model"]),
        ({"datasets": 2}, ["2 data sets"]),
    ],
)
def test_what_is_missing_or_doubled_is_told(whole, change, lost):
    assert replace(whole, **change).lost_against(whole) == lost


def test_every_damage_changes_the_file(script, tmp_path):
    from fault_groups.caches import DAMAGES

    file = tmp_path / "table.npy"
    for damage in DAMAGES.values():
        file.write_bytes(bytes(range(200)))
        damage(file, random.Random(0))
        assert not file.exists() or file.read_bytes() != bytes(range(200))


def test_the_table_tells_how_often_something_was_lost_before_and_now(script):
    from fault_groups.bench import Try

    before = [Try("kills", "SIGKILL", ["2 logged models"]), Try("kills", "SIGKILL"), Try("store", "locked", ["x"])]
    now = [Try("kills", "SIGKILL", waited=0.25), Try("kills", "SIGKILL", waited=-0.1)]
    _, _, kill, lock = script.table(now, before).splitlines()
    assert kill == "| kills | SIGKILL | **1 of 2**: 2 logged models | 0 of 2 | 0.2 s |"
    assert lock == "| store | locked | **1 of 1**: x | not tried |  |"
    assert "before" not in script.table(now)


@pytest.mark.parametrize(
    ("word", "message"), [("groups=floods", "groups: 'floods' is none of kills,"), ("time=3", "Key 'time' not in")]
)
def test_a_wrong_word_is_one_line(script, capsys, word, message):
    assert script.main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.slow
@pytest.mark.parametrize("group", ["kills", "server", "store", "caches", "bundles"])
def test_nothing_is_lost(script, tmp_path, group):
    words = [f"groups={group}", "times=2", f"work={tmp_path / 'work'}", f"out={tmp_path / 'faults.md'}"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "faults.py"), *words], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads((tmp_path / "faults.json").read_text())) >= 2
