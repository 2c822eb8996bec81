import subprocess
import sys

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from cxrnet.core.process import is_main_process


def test_lightning_knows(monkeypatch):
    assert is_main_process()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not is_main_process()


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
