"""The application: readings of images over HTTP, what the model is, health and metrics."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cxrnet.data.images.decode import ImageError
from cxrnet.models.gate import INVERTED, TURNED_AWAY
from cxrnet.reporting.wording import triage_reading
from cxrnet.serving.page import add_page
from cxrnet.serving.queue import Queue
from cxrnet.serving.reader import Reader, Reading, Upload
from cxrnet.serving.uploads import Limits, Receiving, RefusedError, read_uploads

RESEARCH = "Research use only. This is no medical device."
_AT_ONCE = 4  # of the largest bodies that may be received at once

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Numbers:
    """What the server counts, for Prometheus."""

    registry: CollectorRegistry
    requests: Counter
    images: Counter
    seconds: Histogram

    @classmethod
    def make(cls, queue: Queue) -> "Numbers":
        """Make counters of their own for each application."""
        registry = CollectorRegistry()
        waiting = Gauge("cxrnet_waiting_images", "images that wait or are read", registry=registry)
        waiting.set_function(lambda: queue.files)
        return cls(
            registry,
            Counter("cxrnet_requests", "requests by path and status", ["path", "status"], registry=registry),
            Counter("cxrnet_images", "images by outcome", ["outcome"], registry=registry),
            Histogram("cxrnet_predict_seconds", "seconds from request to answer", registry=registry),
        )


def make_app(reader: Reader, limits: Limits, room: int, together: int, model: Mapping[str, Any]) -> FastAPI:
    """Make the application.

    Args:
        reader: reads the images.
        limits: of a request.
        room: files that may wait.
        together: files that are read at once.
        model: what ``GET /v1/model`` answers.
    """
    points = reader.bundle.operating_points
    queue = Queue(reader, room, together, limits.seconds)
    numbers = Numbers.make(queue)
    receiving = Receiving(_AT_ONCE * limits.size)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        queue.close()

    # The pages of the documentation load their scripts from elsewhere.
    app = FastAPI(title="cxrnet", description=RESEARCH, lifespan=life, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def count(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            response = await handle(request)
        except Exception:  # a defect; the log has it, the answer doesn't
            logger.exception("%s", request.url.path)
            response = JSONResponse({"error": "the server failed; its log says why"}, 500)
        route = getattr(request.scope.get("route"), "path", "other")
        numbers.requests.labels(route, response.status_code).inc()
        return response

    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"schema": {"type": "object", "required": ["files"], "properties": {"files": files}}}

    @app.post("/v1/predict", openapi_extra={"requestBody": {"content": {"multipart/form-data": form}}})
    async def predict(request: Request) -> JSONResponse:
        """Read one or several images or DICOM files."""
        began = time.monotonic()
        try:
            uploads = await read_uploads(request, limits, receiving)
            answers = await queue.read(uploads)
        except RefusedError as error:
            return error.answer()
        numbers.seconds.observe(time.monotonic() - began)
        for answer in answers:
            numbers.images.labels(_outcome(answer)).inc()
        unread = all(isinstance(answer, ImageError) for answer in answers)
        images = [answer_of(*each, points) for each in zip(uploads, answers, strict=True)]
        return JSONResponse({"images": images, "notice": RESEARCH}, 422 if unread else 200)

    @app.get("/v1/model")
    async def about() -> Mapping[str, Any]:
        """Say what the model is, and how it did on its own test images."""
        return model

    @app.get("/healthz")
    async def alive() -> PlainTextResponse:
        """Answer as long as the process lives."""
        return PlainTextResponse("ok")

    @app.get("/readyz")
    async def ready() -> PlainTextResponse:
        """Answer 200 where there is room for an image."""
        full = queue.files >= room
        return PlainTextResponse("full" if full else "ready", 503 if full else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Tell the counters in the form of Prometheus."""
        return Response(generate_latest(numbers.registry), media_type=CONTENT_TYPE_LATEST)

    add_page(app, queue, limits, receiving, model.get("tested", {}))
    return app


def _outcome(answer: Reading | ImageError) -> str:
    if isinstance(answer, ImageError):
        return "unreadable"
    return "turned away" if answer.turned_away else "read"


def answer_of(upload: Upload, answer: Reading | ImageError, points: Mapping[str, float]) -> dict[str, Any]:
    """Write a reading as JSON has it; an error is its one line."""
    if isinstance(answer, ImageError):
        return {"file": upload.name, "error": str(answer)}
    if answer.turned_away:
        said = f"{TURNED_AWAY}; {INVERTED}" if answer.inverted else TURNED_AWAY
        return {"file": answer.name, "turned_away": said}
    return {
        "file": answer.name,
        "predicted": answer.predicted,
        "probabilities": answer.probabilities,
        "deferred": answer.deferred,
        "triage": triage_reading(answer.probabilities, points) or None,
    }
