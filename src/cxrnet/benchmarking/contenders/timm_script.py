"""timm's own ``benchmark.py``: a script that lies in its repository and not in its package."""

import json
import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from cxrnet.benchmarking.contenders.ceiling import CLASSES, WARM_UP, Steps
from cxrnet.benchmarking.contenders.memory import peak_memory
from cxrnet.benchmarking.contenders.timm_recipe import NAMES

FEWEST = 5  # steps: it tells its progress five times, and divides by what lies between


def train(script: str, backbone: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of Steps)
    """What ``benchmark.py --bench train`` says of the same network, batch, layout and precision."""
    steps = Steps(**settings)
    sys.argv = [script, *words(backbone, steps)]
    with redirect_stdout(StringIO()) as said:
        runpy.run_path(script, run_name="__main__")
    return {"images_per_second": rate(said.getvalue(), steps), **peak_memory(steps.device)}


def words(backbone: str, steps: Steps) -> list[str]:
    """The script's arguments; older ones know no ``--device``, and take CUDA."""
    height, width = steps.size
    return [
        "--bench", "train", "--model", NAMES.get(backbone, backbone), "--batch-size", str(steps.batch_size),
        "--input-size", "3", str(height), str(width), "--num-classes", str(CLASSES),
        "--num-warm-iter", str(WARM_UP), "--num-bench-iter", str(max(FEWEST, steps.steps)),
        *(["--channels-last"] if steps.channels_last else []),
        *(["--amp", "--amp-dtype", "bfloat16"] if steps.bf16 else []),
        *(["--device", steps.device] if steps.device != "cuda" else []),
    ]  # fmt: skip


def rate(said: str, steps: Steps) -> float:
    """Images a second, of the JSON behind ``--result`` at the end of what the script says.

    Raises:
        RuntimeError: it failed, or took smaller batches because of the memory.
    """
    result = json.loads(said.rpartition("--result")[2])
    if "error" in result:
        raise RuntimeError(f"timm's benchmark.py: {result['error']}")
    if result["train_batch_size"] != steps.batch_size:
        raise RuntimeError(
            f"timm's benchmark.py took batches of {result['train_batch_size']} images, for want of memory; "
            f"give a batch_size below {steps.batch_size}"
        )
    return float(result["train_samples_per_sec"])
