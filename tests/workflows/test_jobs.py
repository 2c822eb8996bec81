"""What a job of a sweep gets of a machine that it shares, and what its launcher learns of its end."""

import subprocess
import sys

from cxrnet.workflows.jobs import failed, gpu_of


def test_gpus_are_handed_round():
    assert [gpu_of(place, ["0", "3"]) for place in range(5)] == ["0", "3", "0", "3", "0"]


def test_processors_and_stored_features_are_divided_among_the_jobs_of_a_machine():
    code = (
        "import os; os.sched_getaffinity = lambda _: set(range(8)); os.environ.pop('OMP_NUM_THREADS', None)\n"
        "from cxrnet.workflows.jobs import take_share; take_share(3); import torch\n"
        "from cxrnet.core.process import jobs_at_once\n"
        "print(os.environ['OMP_NUM_THREADS'], torch.get_num_threads(), jobs_at_once())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "2", "3"]


def test_the_last_line_of_an_error_reaches_the_launcher():
    assert str(failed(ValueError("Traceback\ntoo hot\n"))._return_value) == "too hot"
    assert str(failed(KeyError())._return_value) == "KeyError"
