"""What the server refuses, before gradio sees it: foreign names, frames and senders, and pages that nobody needs.

A page anywhere on the web can point a name of its own at 127.0.0.1 and then talk to a server here as if it were its own
(DNS rebinding). Its requests carry that name as their host, which is not one of ours. An address as
host cannot be forged so. Nor may another page send anything here, such as files that fill the disk: a browser names
the page that a request comes from as its origin.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.frames import frame_headers

HIDDEN = ("/openapi.json", "/monitoring", "/docs", "/redoc")
"""Ends, or middles, of paths that answer 404."""
ELSEWHERE = re.compile(r"/(?:file|proxy|stream)=\s*\w+:/", re.IGNORECASE)
"""Paths by which gradio would fetch something from another server, of any size, and pass it on."""
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?")
"""An IPv6 address in brackets, or anything else, and perhaps a port."""
READING = ("GET", "HEAD", "OPTIONS")


def own_hosts(further: Iterable[str] = ()) -> set[str]:
    """Return the names that this server answers to: this machine's, a Space's, and ``further`` ones."""
    names = {"localhost", socket.gethostname(), os.environ.get("SPACE_HOST", ""), *further}
    return {name.lower().rstrip(".") for name in names if name}


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

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def refusal(self, scope: Scope) -> PlainTextResponse | None:
        """Return the answer to a request that is refused."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self.knows(host):
            return PlainTextResponse("this server does not go by that name; --allow-host adds one", 421)
        if scope.get("method") not in READING and origin is not None and not self.is_own(origin, host):
            return PlainTextResponse("another page must not send anything here; --allow-host adds a name", 403)
        hidden = any(scope["path"].endswith(end) or f"{end}/" in scope["path"] for end in HIDDEN)
        if hidden or ELSEWHERE.search(scope["path"]):
            return PlainTextResponse("not found", 404)
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


def name_of(host: str) -> str:
    """Return the name or address in a host and perhaps a port; "" if it is malformed."""
    found = HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).lower().rstrip(".")
