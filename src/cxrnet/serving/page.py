"""The page for a reader: its files, the picture of one image with its map, predictive values at a prevalence."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from PIL import Image

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.prevalence import predictive_table
from cxrnet.models.attribution import colours
from cxrnet.serving.queue import Queue
from cxrnet.serving.reader import Look
from cxrnet.serving.uploads import Limits, Receiving, RefusedError, read_uploads

_STATIC = Path(__file__).parent / "static"
_FILES = {"/": "index.html", "/static/page.css": "page.css", "/static/page.js": "page.js"}


def add_page(app: FastAPI, queue: Queue, limits: Limits, receiving: Receiving, tested: Mapping[str, Any]) -> None:
    """Add the page and what it asks for.

    Args:
        app: gets ``/``, its script and style, ``/v1/look`` and ``/v1/predictive_values``.
        queue: makes maps, one after the other.
        limits: of a request.
        receiving: what is being received.
        tested: result on the run's own test images, as ``GET /v1/model`` has it.
    """
    for path, name in _FILES.items():
        app.get(path, include_in_schema=False)(_sender(_STATIC / name))

    @app.post("/v1/look")
    async def look(request: Request, label: str | None = None) -> JSONResponse:
        """Draw one image as the network sees it, and a map of what speaks for a class; without one, the predicted."""
        try:
            uploads = await read_uploads(request, limits, receiving)
            seen = await queue.look(uploads[0], label)
        except RefusedError as error:
            return error.answer()
        return JSONResponse(look_of(seen))

    @app.get("/v1/predictive_values")
    async def predictive(prevalence: float) -> JSONResponse:
        """Carry sensitivity and specificity on the test images over to a prevalence: PPV and NPV of each class."""
        try:
            values = {
                name: predictive_table(each["sensitivity"], each["specificity"], [prevalence]).iloc[0]
                for name, each in tested.get("classes", {}).items()
            }
        except CxrnetError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({name: {"ppv": row["ppv"], "npv": row["npv"]} for name, row in values.items()})


def _sender(file: Path) -> Any:  # noqa: ANN401 (what FastAPI takes)
    async def send() -> FileResponse:
        return FileResponse(file)

    return send


def look_of(look: Look) -> dict[str, Any]:
    """Write a look as JSON has it: pictures as data URLs of PNG; the map covers more where it is larger."""
    heat = None
    if look.heat is not None:
        alpha = np.rint(255 * look.heat[..., None]).astype(np.uint8)
        heat = _png(np.concatenate([colours(look.heat), alpha], axis=2))
    cases = [
        {
            "label": case.label,
            "cosine": case.cosine,
            "thumbnail": None if case.thumbnail is None else _png(case.thumbnail),
        }
        for case in look.cases
    ]
    return {"picture": _png(look.picture), "map": heat, "label": look.label, "note": look.note, "cases": cases}


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
