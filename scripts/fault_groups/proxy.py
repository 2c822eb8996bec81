"""A small HTTP proxy in front of a real server, which imitates failing networks and servers."""

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

OWN = ("connection", "transfer-encoding", "content-length", "host")  # headers that belong to one connection


@dataclass(frozen=True)
class Fault:
    """A fault that happens to requests.

    Attributes:
        kind: ``refuse``: nothing listens; ``error``: the answer is 500 and the server sees nothing; ``delay``: the
            server does it, and the answer comes late; ``drop``: the server does it, and no answer comes.
        paths: of which requests, as a regular expression that is searched in the method and path, ``POST /api/...``;
            ``refuse`` takes all.
        seconds: how late a delayed answer comes.
    """

    kind: Literal["refuse", "error", "delay", "drop"]
    paths: str = ""
    seconds: float = 0.0


class Proxy:
    """Passes requests on to a server, and does to them what :attr:`fault` says.

    Args:
        server: its address, ``http://127.0.0.1:5000``.

    Attributes:
        uri: the address that clients are given.
        hit: requests that met a fault.
    """

    def __init__(self, server: str) -> None:
        self.hit = 0
        self._upstream = urlsplit(server).netloc
        self._fault: Fault | None = None
        self._over = threading.Event()  # of the fault in force
        self._listen(0)
        self.uri = f"http://127.0.0.1:{self._listener.server_port}"

    @property
    def fault(self) -> Fault | None:
        """The fault in force; answers that wait for the end of a delay go out when it is taken back."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._over.set()
        self._over = threading.Event()
        before, self._fault = self._fault, fault
        if fault and fault.kind == "refuse":
            self.close()
        elif before and before.kind == "refuse":
            self._listen(self._listener.server_port)

    def close(self) -> None:
        """Stop listening; connections are refused from now on."""
        self._listener.shutdown()
        self._listener.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Pass one request on, or do what the fault says."""
        body, fault, over = _body(request), self._fault, self._over
        if fault and re.search(fault.paths, f"{request.command} {request.path}"):
            self.hit += 1
        else:
            fault = None
        if fault and fault.kind == "error":
            request.send_error(500)
            return
        status, headers, content = self._forward(request, body)
        if fault and fault.kind == "drop":
            return  # the connection closes without a byte
        if fault and fault.kind == "delay":
            over.wait(fault.seconds)
        with suppress(OSError):  # the client may have given up
            request.send_response_only(status)
            for name, value in headers:
                if name.lower() not in OWN:
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in OWN}
            connection.request(request.command, request.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _listen(self, port: int) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):  # HTTP/1.0: a connection for each request
            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                self.close_connection = True
                if self.raw_requestline and self.parse_request():
                    proxy.answer(self)

            def log_message(self, *_: object, **__: object) -> None:
                """Say nothing."""

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing: connections that break are what this is for."""

        self._listener = Listener(("127.0.0.1", port), Handler)
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()


@contextmanager
def proxy_before(server: str) -> Iterator[Proxy]:
    """Open a proxy before a server, and close it."""
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.fault = None
        proxy.close()


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)
