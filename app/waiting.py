"""The page's head, at once, while the voice and the libraries below it load; then the page itself takes over the port.

Python's own server and nothing else, so that it is up in a fraction of a second.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app import headline
from app.frames import frame_headers

SCRIPT = """
const ask = () => fetch("wand/ready").then((answer) => answer.text())
  .then((words) => words === "ready" ? location.reload() : setTimeout(ask, 400))
  .catch(() => setTimeout(ask, 400));
ask();
"""
DARK = 'if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.classList.add("dark");'
LOADING = "The voice is loading, a few seconds more. You can listen to this example meanwhile."
KINDS = {".js": "text/javascript", ".css": "text/css", ".ogg": "audio/ogg"}
FILES = {"/wand/static/": headline.STATIC, "/wand/precomputed/": headline.PRECOMPUTED}


def page() -> str:
    """Return the page: the head, and a line that says what it waits for."""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{headline.TITLE}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="wand/static/style.css"><style>
:root {{--body-text-color: #1f2937; color-scheme: light}}
body {{font-family: system-ui, sans-serif; margin: 0; background: #fff; color: var(--body-text-color)}}
.dark body {{background: #0b0f19}} .dark {{--body-text-color: #f3f4f6; color-scheme: dark}}
main {{max-width: 1176px; margin: 0 auto; padding: 1rem; display: grid; gap: 1rem}}
</style><script>{DARK}</script>
<script defer src="wand/static/player.js"></script></head><body class="gradio-container"><main>
{headline.lead()}<div id="numbers">{headline.example_numbers()}</div>
<div>{headline.example_player()}{headline.terms()}</div>
<div class="status" role="status" id="loading">{LOADING}</div>
</main><script>{SCRIPT}</script></body></html>"""


@contextmanager
def waiting_page(host: str, port: int) -> Iterator[None]:
    """Serve the head of the page until the context ends, which frees the port.

    Raises
    ------
    OSError
        If the port cannot be listened on.
    """
    server = ThreadingHTTPServer((host, port), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for prefix, folder in FILES.items():
            name = path.removeprefix(prefix)
            if path.startswith(prefix) and name in {file.name for file in folder.iterdir()}:
                self._send(200, (folder / name).read_bytes(), KINDS.get((folder / name).suffix, "text/plain"))
                return
        if path == "/wand/ready":
            self._send(200, b"loading", "text/plain")
        elif path == "/":
            self._send(200, page().encode(), "text/html; charset=utf-8")
        else:
            self._send(503, b"loading", "text/plain")

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        headers = {"content-type": kind, "content-length": str(len(content)), "cache-control": "no-store"}
        for name, value in (headers | frame_headers()).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is for the user."""
