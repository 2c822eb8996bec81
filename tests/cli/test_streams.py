import subprocess
import sys

import pytest

# Prints more than a pipe holds, and then does what matters.
WORK = """
import sys
from pathlib import Path
from cxrnet.core.console import keep_streams, nobody_reads, stdout_lost

keep_streams()
for row in range(20_000):
    print("Lungenentzündung \\udcff", row)
print("a word", file=sys.stderr)
lost = stdout_lost()
Path("done.txt").write_text(f"{nobody_reads()} {lost and lost.strerror}")
"""


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("{} | head -1", "True Broken pipe"),
        ("{} > out.txt", "False None"),
        ("{} > /dev/full", "False No space left on device"),
        ("{} >&-", "False None"),
        ("{} >&- 2>&-", "False None"),
        ("{} 2>/dev/full > out.txt", "False None"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/full")
def test_who_reads_does_not_matter(tmp_path, line, seen):
    (tmp_path / "work.py").write_text(WORK)
    shell = ["bash", "-o", "pipefail", "-c", line.format(f"PYTHONIOENCODING=ascii {sys.executable} work.py")]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert (tmp_path / "done.txt").read_text() == seen
    if "out.txt" in line:
        lines = (tmp_path / "out.txt").read_text().splitlines()
        assert (len(lines), lines[-1]) == (20_000, r"Lungenentz\xfcndung \udcff 19999")
