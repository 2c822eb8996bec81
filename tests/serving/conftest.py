import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from cxrnet.serving.app import make_app
from cxrnet.serving.protection import LOCAL, Protection
from cxrnet.serving.reader import Reader
from cxrnet.serving.uploads import Limits
from cxrnet.workflows.serve import about


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def png() -> Callable[[np.ndarray], bytes]:
    """Writes pixels as PNG."""
    return _png


@pytest.fixture
def image(bundle, gated) -> Callable[..., bytes]:
    """A PNG that the gate lets in."""
    _, noise = gated(bundle)
    return lambda seed=3: _png(noise(bundle, 1, seed)[0])


@pytest.fixture
def reader(bundle, gated) -> Reader:
    return Reader(gated(bundle)[0], torch.device("cpu"), 8, 1_000_000)


@pytest.fixture
def client(reader) -> Callable[..., TestClient]:
    def make(size: int = 1_000_000, files: int = 4, seconds: float = 20, room: int = 8, token: str | None = None):
        app = make_app(reader, Limits(size, files, seconds), room, 4, about(reader.bundle, None))
        return TestClient(Protection(app, LOCAL, token), base_url="http://127.0.0.1", raise_server_exceptions=False)

    return make
