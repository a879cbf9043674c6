"""What the server refuses, before gradio sees it: foreign names, frames and senders, unused paths, what is too large.

A page anywhere on the web can point a name of its own at 127.0.0.1 and then talk to a server here as if it were its own
(DNS rebinding). Its requests carry that name as their host, which is not one of ours. An address as
host cannot be forged so. Nor may another page send anything here, such as files that fill the disk: a browser names
the page that a request comes from as its origin. Of gradio's own interface only the paths that the page and its clients
use are open: others fetch from the web, run programs on what was sent, or read whole requests into memory.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.frames import frame_headers
from app.hosts import name_of

API = "/gradio_api/"
USED = re.compile(
    r"info/?|startup-events|theme\.css|app_id/?|upload|upload_progress|queue/(?:join|data)|(?:call|run)/.+|cancel|reset/?"
    r"|heartbeat/.+|stream/.+|file=(?!\s*\w+:/).+"
)
"""What is open below :data:`API`. A file is none of another server's, which gradio would fetch and pass on."""
HIDDEN = ("/openapi.json", "/monitoring", "/docs", "/redoc")
"""Ends, or middles, of other paths that answer 404."""
LARGEST_UPLOAD, LARGEST_REQUEST = 21_000_000, 1_000_000
"""Bytes of all files of one upload with what is around them, and of any other request."""
READING = ("GET", "HEAD", "OPTIONS")
TOO_LARGE = "the request has more than {:,} bytes, which is the limit"


class Guard:
    """ASGI middleware around the whole server.

    Parameters
    ----------
    hosts
        Names that requests may be addressed to, beside any plain IP address.
    """

    def __init__(self, app: ASGIApp, hosts: set[str]) -> None:
        self.app, self.hosts = app, hosts
        headers = frame_headers() | {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and add headers to the answer."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        taken, limit = 0, limit_of(scope)

        async def receive_within_limit() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, TOO_LARGE.format(limit))
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive_within_limit, send_with_headers)

    def refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Return the answer to a request that is refused."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self.knows(host):
            return PlainTextResponse("this server does not go by that name; --allow-host adds one", 421)
        if scope.get("method") not in READING and origin is not None and not self.is_own(origin, host):
            return PlainTextResponse("another page must not send anything here; --allow-host adds a name", 403)
        if not is_open(scope["path"]):
            return PlainTextResponse("not found", 404)
        declared, limit = headers.get(b"content-length", ""), limit_of(scope)
        if declared.isdecimal() and int(declared) > limit:  # better refused before a part of it is stored
            return PlainTextResponse(TOO_LARGE.format(limit), 413)
        return None

    def is_own(self, origin: str, host: str) -> bool:
        """Tell whether an Origin header is this page's: the request's host, or one of our names, as behind a proxy."""
        sender = origin.partition("://")[2]
        return sender.lower() == host.lower() or name_of(sender) in self.hosts

    def knows(self, host: str) -> bool:
        """Tell whether a Host header is one of ours: a known name or an address, with or without a port."""
        name = name_of(host)
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_open(path: str) -> bool:
    """Tell whether a path is one that the page or a client of it uses."""
    _, found, rest = path.partition(API)
    if found:
        return USED.fullmatch(rest) is not None
    return not any(path.endswith(end) or f"{end}/" in path for end in HIDDEN)


def limit_of(scope: Scope) -> int:
    """Return how many bytes a request may have."""
    return LARGEST_UPLOAD if scope["path"] == f"{API}upload" else LARGEST_REQUEST
