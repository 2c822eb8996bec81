"""Time predictions of one bundle by several runtimes: the table in docs/benchmarks.md.

    python scripts/latency.py bundle=<run> [rounds=7] [threads=<number of processors>]

torch as it is (channels first, channels last, batch norms fused as ``predict`` has them, torch.export), onnxruntime in
float32 and in eight bits, and OpenVINO where it is installed. All take images of the bundle's size and give
probabilities. They take turns within each round; the median of the rounds counts, with the least and the largest.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from cxrnet.data.images.decode import UInt8Array
from cxrnet.models.bundle import Bundle, load_bundle
from cxrnet.models.exported import Calibrated, write_int8, write_onnx, write_program
from cxrnet.models.fusion import fused

Run = Callable[[UInt8Array], object]
_BATCH = 32
_SECONDS = 1.5  # of each measurement


def by_torch(network: torch.nn.Module) -> Run:
    """Run a module of torch."""

    @torch.inference_mode()
    def run(images: UInt8Array) -> object:
        return network(torch.from_numpy(images)).numpy()

    return run


def by_onnxruntime(file: Path, threads: int) -> Run:
    """Run a file by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def by_openvino(file: Path, threads: int, precision: str) -> Run:
    """Run a file by OpenVINO; by itself it takes bf16 where the processor has it."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(file), "CPU", settings)
    return lambda images: compiled({"images": images})[0]


def runtimes(bundle: Bundle, folder: Path, threads: int) -> dict[str, Run]:
    """Make all runtimes of a bundle."""
    rng = np.random.default_rng(0)
    size = bundle.network.config.size
    write_onnx(bundle, folder / "model.onnx", {})
    write_int8(bundle, rng.integers(0, 256, (16, 1, *size), np.uint8), folder / "model.int8.onnx", {})
    write_program(bundle, folder / "model.pt2", {})
    first = load_bundle(folder / "bundle").network.to(memory_format=torch.contiguous_format)

    made = {
        "torch, channels first": by_torch(Calibrated(first, bundle.temperature).eval()),
        "torch, channels last": by_torch(Calibrated(bundle.network, bundle.temperature).eval()),
        "torch, channels last, fused (`predict`)": by_torch(
            Calibrated(fused(bundle.network), bundle.temperature).eval()
        ),
        "torch.export": by_torch(torch.export.load(folder / "model.pt2").module()),
        "onnxruntime": by_onnxruntime(folder / "model.onnx", threads),
        "onnxruntime, eight bits": by_onnxruntime(folder / "model.int8.onnx", threads),
    }
    if find_spec("openvino"):
        for precision in ("f32", "bf16"):
            made[f"OpenVINO, {precision}"] = by_openvino(folder / "model.onnx", threads, precision)
    return made


def rate(run: Run, images: UInt8Array) -> float:
    """Measure seconds a call."""
    run(images)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        run(images)
        calls += 1
    return (time.perf_counter() - began) / calls


def main() -> None:
    """Print the table."""
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if "bundle" not in words:
        print(__doc__)
        return
    threads, rounds = int(words.get("threads", os.cpu_count() or 1)), int(words.get("rounds", 7))
    torch.set_num_threads(threads)
    place = Path(words["bundle"])
    place = place / "bundle" if (place / "bundle").is_dir() else place
    rng, bundle = np.random.default_rng(1), load_bundle(place)
    with TemporaryDirectory() as scratch:
        (Path(scratch) / "bundle").symlink_to(place.resolve())
        made = runtimes(bundle, Path(scratch), threads)
        one, many = (rng.integers(0, 256, (n, 1, *bundle.network.config.size), np.uint8) for n in (1, _BATCH))
        before = os.getloadavg()[0]
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
        for _ in range(rounds):
            for name, run in made.items():
                taken[name].append((1000 * rate(run, one), _BATCH / rate(run, many)))
    print(f"{bundle.network.config.backbone}, {threads} threads, {rounds} rounds, load average before {before:.2f}\n")
    print(f"| runtime | one image, ms | images/s, batches of {_BATCH} |\n|---|---|---|")
    for name, pairs in taken.items():
        cells = []
        for values, places in zip(zip(*pairs, strict=True), (1, 0), strict=True):
            middle, low, high = statistics.median(values), min(values), max(values)
            cells.append(f"{middle:.{places}f} ({low:.{places}f} to {high:.{places}f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
