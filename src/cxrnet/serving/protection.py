"""What a server on a network needs: checks before any work is done, and headers on every answer."""

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "::1")
_PAGE = ("/", "/static/page.css", "/static/page.js")
_OPEN = ("/healthz", "/readyz", *_PAGE)  # without a token: they tell nothing
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Protection:
    """Refuses requests before anything is read of them.

    Attributes:
        app: gets the others.
        hosts: names by which the server may be called, without the port; none: any. Otherwise a page elsewhere could
            have its name point at this machine (DNS rebinding).
        token: that each request must bring, as ``Authorization: Bearer <token>``; ``None`` where none is needed.
    """

    app: ASGIApp
    hosts: Sequence[str]
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refused = self._refused(scope["path"], Headers(scope=scope))
        if refused is None:
            await self.app(scope, receive, with_headers)
            return
        status, reason = refused
        headers = [(b"content-type", b"application/json")]
        headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"error": reason}).encode()})

    def _refused(self, path: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts and host_name(host) not in self.hosts:
            return 421, "the server isn't called by this name; add it to hosts"
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        foreign &= path != "/" or headers.get("sec-fetch-mode") != "navigate"  # a link to the page may be anywhere
        if foreign or (origin is not None and urlsplit(origin).netloc != host):
            return 403, "pages of other sites can't use this server"
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if (
            self.token is not None
            and path not in _OPEN
            and not hmac.compare_digest(given.encode(), self.token.encode())
        ):
            return 401, "send the server's token as Authorization: Bearer <token>"
        return None


def host_name(host: str) -> str:
    """Take the port off a host: ``[::1]:8000`` is ``::1``."""
    return (urlsplit(f"//{host}").hostname or "") if host.isprintable() else ""
