import asyncio
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from cxrnet.data.images.decode import ImageError
from cxrnet.evaluation.predictions import softmax
from cxrnet.inference import predict_images, read_bytes
from cxrnet.serving.queue import Queue
from cxrnet.serving.reader import Upload
from cxrnet.serving.uploads import Limits, Receiving, RefusedError, clean_name, read_uploads

PREDICT = "/v1/predict"


def send(client, *files, **options) -> httpx.Response:
    return client.post(PREDICT, files=[("files", each) for each in files], **options)


def test_readings_are_those_of_the_bundle(client, image, bundle, reader):
    answer = send(client(), ("a.png", image(1)), ("b.png", image(2)))
    assert answer.status_code == 200
    images = answer.json()["images"]
    assert [each["file"] for each in images] == ["a.png", "b.png"]
    read = read_bytes(bundle, [image(1), image(2)], ["a", "b"])
    expected = softmax(predict_images(bundle, read, 8, torch.device("cpu")))
    found = [[each["probabilities"][name] for name in bundle.classes] for each in images]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [each["predicted"] for each in images] == [bundle.classes[k] for k in expected.argmax(axis=1)]
    assert "Research use only" in answer.json()["notice"]


def test_what_is_no_radiograph_gets_no_class_and_what_is_no_image_a_line(client, image, png):
    answer = send(client(), ("black.png", png(np.zeros((40, 32), np.uint8))), ("x.png", b"broken"), ("a.png", image()))
    black, broken, good = answer.json()["images"]
    assert answer.status_code == 200
    assert black == {"file": "black.png", "turned_away": "does not look like a frontal chest radiograph"}
    assert broken["error"].startswith("'x.png' is not an image")
    assert good["predicted"]
    alone = send(client(), ("x.png", b"broken"))
    assert alone.status_code == 422


def test_the_name_of_a_file_shows_no_path(client):
    answer = send(client(), ("C:\\secret\\../ab.png", b"broken")).json()["images"][0]
    assert answer["file"] == "ab.png"
    assert clean_name("/home/me/\x07\u202ea.png") == "a.png"
    assert "secret" not in str(answer)


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, 415, "send multipart/form-data"),
        ({"files": [("files", ("a.png", bytes(1_000_001)))]}, 413, "more than 1 MB"),
        ({"files": [("files", (f"{k}.png", b"x")) for k in range(5)]}, 413, "more than 4 files"),
        ({"data": {"a": "b"}, "files": [("other", (None, b"x"))]}, 400, "no file was sent"),
        ({"content": b"--x\r\nbad", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "multipart"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, ""),
    ],
)
def test_requests_that_will_not_do(client, request_, status, reason):
    answer = client().post(PREDICT, **request_)
    assert answer.status_code == status
    assert reason in answer.json()["error"]


def test_a_body_without_a_length_is_cut_at_the_limit(client):
    def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(30):
            yield bytes(100_000)

    answer = client().post(PREDICT, content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413


def test_a_body_that_is_cut_off_after_a_whole_file_is_refused(client, image):
    def part(name: str) -> bytes:
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        return head.encode() + image() + b"\r\n"

    body = part("a.png") + part("b.png")[:200]
    answer = client().post(PREDICT, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, "cut off" in answer.json()["error"]) == (400, True)


def test_an_image_of_too_many_pixels_is_not_decoded(client, png):
    answer = send(client(), ("large.png", png(np.zeros((1001, 1000), np.uint8))))
    assert answer.status_code == 422
    assert "pixels" in answer.json()["images"][0]["error"]


def test_nothing_is_kept_on_disk(client, image, png, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    opened: list[str] = []

    def watch(event, args):
        if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
            opened.append(str(args[0]))

    sys.addaudithook(watch)
    big = png(np.random.default_rng(0).integers(0, 256, (900, 1000), np.uint8))
    assert send(client(size=3_000_000), ("big.png", big), ("a.png", image())).status_code == 200
    assert not opened
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:80"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1"}, 200),
        ({"Host": "localhost:8000"}, 200),
    ],
)
def test_pages_of_other_sites_can_not_use_it(client, headers, status):
    answer = client().get("/v1/model", headers=headers)
    assert answer.status_code == status
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_token_is_asked_for_but_by_the_checks_of_health(client, image):
    secured = client(token="0123456789abcdef")
    assert secured.get("/v1/model").status_code == secured.get("/metrics").status_code == 401
    assert send(secured, ("a.png", image())).status_code == 401
    assert secured.get("/healthz").text == "ok"
    assert secured.get("/readyz").text == "ready"
    for token, status in (("0123456789abcdeX", 401), ("", 401), ("0123456789abcdef", 200)):
        answer = secured.get("/v1/model", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status


def test_the_model_is_described_and_counted(client, image, bundle):
    made = client()
    model = made.get("/v1/model").json()
    assert model["classes"] == list(bundle.classes)
    assert model["gate"] is True
    assert "don't lie beside the bundle" in model["tested"]["reason"]
    send(made, ("a.png", image()), ("b.png", b"broken"))
    text = made.get("/metrics").text
    assert 'cxrnet_images_total{outcome="read"} 1.0' in text
    assert 'cxrnet_images_total{outcome="unreadable"} 1.0' in text
    assert 'cxrnet_requests_total{path="/v1/predict",status="200"} 1.0' in text
    described = made.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/predict",
        "/v1/model",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/look",
        "/v1/predictive_values",
    }
    assert made.get("/docs").status_code == 404


class Slow:
    """A reader that waits until it is let go, and notes how many files it gets at once."""

    def __init__(self, reader) -> None:
        self.reader, self.go, self.calls = reader, threading.Event(), []

    def read(self, uploads):
        self.go.wait(20)
        self.calls.append(len(uploads))
        return self.reader.read(uploads)

    def close(self) -> None:
        self.reader.close()


def test_requests_that_wait_are_read_together_and_one_too_many_is_refused(reader, image):
    async def check() -> Slow:
        slow = Slow(reader)
        queue = Queue(slow, room=5, together=3, seconds=20)
        tasks = [asyncio.create_task(queue.read([Upload(f"{k}.png", image(k))])) for k in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(RefusedError, match="too many images") as refused:
            await queue.read([Upload("one.png", b"x")])
        assert refused.value.status == 429
        slow.go.set()
        answers = await asyncio.gather(*tasks)
        assert [each[0].name for each in answers] == [f"{k}.png" for k in range(5)]
        assert queue.files == 0
        queue.close()
        return slow

    assert asyncio.run(check()).calls in ([1, 3, 1], [3, 2])


def test_bodies_that_are_received_share_one_bound():
    async def check() -> None:
        receiving, limits = Receiving(1000), Limits(900, 4, 20)

        class Sent:
            def __init__(self, go: asyncio.Event) -> None:
                self.go = go
                self.headers = {"content-type": "multipart/form-data; boundary=x", "content-length": "900"}

            async def stream(self):
                yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(550)
                await self.go.wait()

        go = asyncio.Event()
        first = asyncio.create_task(read_uploads(Sent(go), limits, receiving))
        await asyncio.sleep(0.01)
        with pytest.raises(RefusedError) as refused:
            await read_uploads(Sent(go), limits, receiving)
        assert (refused.value.status, refused.value.answer().headers["Retry-After"]) == (429, "2")
        go.set()
        with pytest.raises(RefusedError):
            await first
        assert receiving.used == 0

    asyncio.run(check())


def test_who_waits_too_long_is_told_and_the_next_one_is_read(reader, image):
    async def check() -> None:
        slow = Slow(reader)
        queue = Queue(slow, room=5, together=3, seconds=0.2)
        with pytest.raises(RefusedError) as refused:
            await queue.read([Upload("a.png", image())])
        assert refused.value.status == 503
        slow.go.set()
        await asyncio.sleep(0.1)
        assert isinstance((await queue.read([Upload("b.png", b"no")]))[0], ImageError)
        queue.close()

    asyncio.run(check())


def test_a_defect_shows_nothing_and_the_server_goes_on(client, image, reader, monkeypatch):
    made = client()
    whole = reader.read

    def failing(uploads):
        raise RuntimeError("/secret/place")

    monkeypatch.setattr(reader, "read", failing)
    answer = send(made, ("a.png", image()))
    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says why"})
    monkeypatch.setattr(reader, "read", whole)
    assert send(made, ("a.png", image())).status_code == 200


def test_no_asset_of_the_network_is_named():
    folder = Path(__file__).parents[2] / "src" / "cxrnet" / "serving"
    assert not [file for file in folder.rglob("*.py") if "https://" in file.read_text(encoding="utf-8")]
