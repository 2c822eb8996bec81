"""Put load on the server: the figures in docs/serving.md.

    python scripts/serve_load.py bundle=<run> images=<folder> [clients=8] [seconds=60] [batch=1]

It starts ``python -m cxrnet.serve`` on this machine, asks for one image after the other by one client, then by several
at once, and after that predicts the same images with ``python -m cxrnet.predict``'s functions, as many as were asked
for. Each request sends ``batch`` images.
"""

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import torch

from cxrnet.inference import predict_files
from cxrnet.models.bundle import device_of, load_bundle

_ALONE = 20  # seconds of one client
_BOUNDARY = "cxrnet-load"


@contextmanager
def server(bundle: str) -> Iterator[tuple[str, int]]:
    """Start the server on a free port; yield its address and the number of its process."""
    command = [sys.executable, "-m", "cxrnet.serve", f"bundle={bundle}", "port=0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            base = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
            transport = httpx.HTTPTransport(retries=20)
            with httpx.Client(transport=transport) as client:
                client.get(f"{base}/readyz")
            yield base, process.pid
        finally:
            process.terminate()
            process.wait(30)


def bodies(files: Sequence[Path], batch: int) -> list[bytes]:
    """Make the bodies of requests beforehand: the clients share the processors with the server."""
    made = []
    for start in range(0, len(files) - batch + 1, batch):
        parts = []
        for file in files[start : start + batch]:
            head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
            parts += [head.encode(), file.read_bytes(), b"\r\n"]
        made.append(b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()]))
    return made


def ask(base: str, sent: Iterator[bytes], until: float, taken: list[tuple[float, int]]) -> None:
    """Send requests until a time; note the seconds and the status of each."""
    client = HTTPConnection(base.removeprefix("http://"), timeout=120)
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    while time.monotonic() < until:
        began = time.monotonic()
        client.request("POST", "/v1/predict", next(sent), headers)
        answer = client.getresponse()
        answer.read()
        taken.append((time.monotonic() - began, answer.status))


def by_all(base: str, sent: Sequence[bytes], clients: int, seconds: float) -> list[tuple[float, int]]:
    """Let several clients ask at once; each begins with another body."""
    taken: list[tuple[float, int]] = []
    until = time.monotonic() + seconds
    starts = [k * len(sent) // clients for k in range(clients)]
    threads = [
        threading.Thread(target=ask, args=(base, itertools.cycle([*sent[k:], *sent[:k]]), until, taken)) for k in starts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def main() -> None:
    """Print the figures."""
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if not {"bundle", "images"} <= set(words):
        print(__doc__)
        return
    clients, seconds, batch = int(words.get("clients", 8)), float(words.get("seconds", 60)), int(words.get("batch", 1))
    files = sorted(path for path in Path(words["images"]).rglob("*") if path.is_file())
    sent = bodies(files, batch)
    print(f"load average before: {os.getloadavg()[0]:.2f}")
    with server(words["bundle"]) as (base, _):
        by_all(base, sent, 1, 2)  # warms up
        alone: list[tuple[float, int]] = []
        ask(base, itertools.cycle(sent), time.monotonic() + min(seconds, _ALONE), alone)
        began = time.monotonic()
        taken = by_all(base, sent, clients, seconds)
        served = len(taken) * batch / (time.monotonic() - began)
    folder = Path(words["bundle"])
    bundle = load_bundle(folder / "bundle" if (folder / "bundle").is_dir() else folder)
    began, count = time.monotonic(), 0
    torch.set_num_threads(os.cpu_count() or 1)
    while time.monotonic() - began < min(seconds, 30):
        for table in predict_files(bundle, words["images"], 32, device_of("cpu"), "skip", gate=True):
            count += len(table)
    predicted = count / (time.monotonic() - began)
    single, waited = np.median([each for each, _ in alone]), np.percentile([each for each, _ in taken], [50, 95])
    wrong = sum(status != 200 for _, status in taken)
    print(f"one client: {len(alone)} requests of {batch} images, median {1000 * single:.0f} ms")
    print(
        f"{clients} clients, {seconds:g} s: {len(taken)} requests, {wrong} errors, median {1000 * waited[0]:.0f} ms, "
        f"p95 {1000 * waited[1]:.0f} ms ({waited[1] / single:.1f} times one request), {served:.1f} images/s"
    )
    print(f"predict on the same images: {predicted:.1f} images/s; the server has {served / predicted:.2f} of it")
    print(f"load average after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
