"""What every test may ask for."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real X-rays and weights; tests that need it are skipped without it.

    CI sets CXRNET_REQUIRE_SHARED=1, which turns the skip into a failure.
    """
    folder = Path(os.environ.get("CXRNET_SHARED", REPOSITORY.parent / "shared"))
    if (folder / "data").is_dir() and (folder / "weights").is_dir():
        return folder
    message = f"no real X-rays at '{folder}': set CXRNET_SHARED to the folder that holds data/ and weights/"
    if os.environ.get("CXRNET_REQUIRE_SHARED") == "1":
        pytest.fail(message)
    pytest.skip(message)
