"""Rank, memory and imports of the process; each in a process of its own where it would stay."""

import platform
import subprocess
import sys

import pytest

ASK = """
import sys
from cxrnet.core.process import is_main_process
print(is_main_process())
assert "lightning" not in sys.modules
"""


@pytest.mark.parametrize(
    ("environment", "main"),
    [({}, True), ({"LOCAL_RANK": "1"}, False), ({"LOCAL_RANK": "0"}, True), ({"RANK": "2", "LOCAL_RANK": "0"}, False)],
)
def test_before_lightning_is_imported_the_environment_tells(environment, main):
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{main}\n"


COMPUTE = """
import hashlib, sys
import torch
from cxrnet.core.process import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory() is True
torch.set_num_threads(1)
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Conv2d(1, 64, 3), torch.nn.ReLU(), torch.nn.Conv2d(64, 8, 3))
for _ in range(3):  # what was freed is used again
    network(torch.randn(8, 1, 96, 96)).square().mean().backward()
gradients = [parameter.grad.numpy().tobytes() for parameter in network.parameters()]
print(hashlib.sha256(b"".join(gradients)).hexdigest())
"""


def compute(how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, how], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_and_results_stay_as_they_are():
    assert compute("kept") == compute("returned")


FREEZING = """
import contextlib
import gc
from cxrnet.core.process import quick_imports

for _ in range(2):
    with quick_imports():
        assert not gc.isenabled()
        import torch
        with contextlib.suppress(ImportError):
            import triton  # complains in the end of what was not freed
    assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 100_000, frozen

class Node: pass
node = Node()
node.itself = node
alive = __import__("weakref").ref(node)
with quick_imports():
    pass
del node
gc.collect()
assert alive() is None, "frozen garbage is never freed"

gc.disable()
with quick_imports():
    pass
assert not gc.isenabled()
"""


def test_imports_are_not_searched_for_garbage_and_what_comes_later_is():
    done = subprocess.run([sys.executable, "-c", FREEZING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
