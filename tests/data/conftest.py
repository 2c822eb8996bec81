"""Fixtures of the tests of data."""

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.manifest import make_manifest


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def _encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _manifest_of(labels, **columns) -> pd.DataFrame:
    ids = [f"{i:04d}.png" for i in range(len(labels))]
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": list(labels), "source": "s", **columns})
    return make_manifest(rows, "test")


@pytest.fixture(scope="session")
def touch() -> Callable[..., Path]:
    """Makes files of one byte below a folder, which it returns."""
    return _touch


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Encodes an image of Pillow."""
    return _encode


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., pd.DataFrame]:
    """Makes a manifest of labels and further columns; images are 0000.png, 0001.png, ..."""
    return _manifest_of
