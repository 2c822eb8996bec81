"""Drawing with several processes.

The work is thousands of small numpy calls, on which threads wait for each other. The helpers are plain Python
commands and not ``multiprocessing``, which on Windows and macOS runs the user's own script a second time.
"""

import os
import subprocess
import sys
from pathlib import Path

from cxrnet.data.phantom.writing import enrol, write_patients

# Starting a helper costs about as much as drawing this many images.
WORTH = 50


def draw(folder: Path, images: int, size: int, seed: int) -> None:
    """Draw a whole set into ``folder``, with as many processes as there are cores and as is worth while.

    Raises:
        RuntimeError: a helper failed; with its last line.
    """
    count = max(1, min(os.cpu_count() or 1, images // WORTH))
    # The helpers must find cxrnet where this process found it.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    helpers = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), *map(str, (images, size, seed, share, count))],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for share in range(1, count)
    ]
    try:
        draw_share(folder, images, size, seed, 0, count)
        for helper in helpers:
            _, trouble = helper.communicate()
            if helper.returncode:
                last = trouble.strip().splitlines()[-1:] or [f"exit status {helper.returncode}"]
                raise RuntimeError(f"a drawing process failed: {last[0]}")
    finally:
        for helper in helpers:
            helper.kill()  # does nothing to one that has ended
            helper.wait()


def draw_share(folder: Path, images: int, size: int, seed: int, share: int, of: int) -> None:
    """Draw every ``of``-th patient of a set, from number ``share`` on."""
    write_patients(folder, enrol(images, seed)[share::of], size)


if __name__ == "__main__":
    draw_share(Path(sys.argv[1]), *map(int, sys.argv[2:]))
