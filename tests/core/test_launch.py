import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxrnet.core.launch import Launch, launched, said_by_the_first
from cxrnet.errors import CxrnetError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (TORCHRUN, Launch("torchrun", 4, 3, 2)),
        (SLURM, Launch("srun", 8, 5, 4)),
        (SLURM | TORCHRUN, Launch("torchrun", 4, 3, 2)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None),  # started by Lightning
        (SLURM | {"SLURM_JOB_NAME": "bash"}, None),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, None),
    ],
)
def test_what_started_a_process(monkeypatch, variables, expected):
    for name in TORCHRUN | SLURM:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched() == expected


@pytest.fixture
def port(monkeypatch) -> None:
    """A free port, as torchrun would name one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1] - 1))
    monkeypatch.setenv("MASTER_ADDR", "localhost")


def test_all_processes_hear_what_the_first_says(port):
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(said_by_the_first, Launch("torchrun", 3, rank, 3), "not heard") for rank in (1, 2)]
        assert said_by_the_first(Launch("torchrun", 3, 0, 3), "the folder", patience=60) == "the folder"
        assert [other.result(60) for other in others] == ["the folder", "the folder"]


def test_a_process_that_is_alone_says_so_in_one_line(port):
    with pytest.raises(CxrnetError, match=r"^trainer: process 1 of the 2 that torchrun started didn't find the others"):
        said_by_the_first(Launch("torchrun", 2, 1, 2), patience=1)
