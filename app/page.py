"""The page: its heading, its tabs, and the server that shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from app import headline
from app.guard import Guard
from app.hosts import own_hosts
from app.request import from_link
from app.sounds import KEPT_SECONDS
from app.stage import Stage, Untrained
from app.storage import drop_broken_uploads
from app.tabs import TABS
from app.view import history, shown
from wandlib.systems.base import SpeechSystem

UPLOAD_LIMIT = "20mb"
"""Of a file; :mod:`app.guard` limits the whole request."""
CACHE_SECONDS = (300, 3300)
"""How often uploads are checked, and their age at deletion: an hour together. All are deleted when the server ends."""
SECONDS_BETWEEN_LOOKS = 60
"""At the age of sounds."""
SESSIONS = 100
"""Visitors whose state is kept: gradio copies the page's configuration for each, 0.2 MB."""
HEAD = '<script defer src="wand/static/player.js"></script>'


class Page(gr.Blocks):
    """Blocks whose handlers answer a malformed request with a sentence, and that clean up when they are closed."""

    stage: Stage

    async def preprocess_data(self, *arguments: Any, **keywords: Any) -> Any:
        """Read a request's values; of wrong kinds, gradio would answer ``null`` and print a traceback."""
        if names_address((arguments, keywords)):  # gradio would fetch it, of any size, before anybody looks
            raise shown("A recording is a file that was uploaded here, not an address on the web: upload it.")
        try:
            return await super().preprocess_data(*arguments, **keywords)
        except gr.Error as problem:
            problem.print_exception = False
            raise
        except Exception as problem:
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            raise shown(f"The request has a value of a wrong kind, or too few of them: {reason}") from None

    def close(self, verbose: bool = True) -> None:
        """Stop the server, what runs, and remove all sounds."""
        super().close(verbose=verbose)
        self.stage.close()


def names_address(value: Any) -> bool:
    """Tell whether a file in a request's values lies on another server."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and path.strip().lower().startswith(("http:", "https:")):
            return True
        return any(map(names_address, value.values()))
    return isinstance(value, list | tuple) and any(map(names_address, value))


def build_app(
    system: SpeechSystem,
    *,
    checkpoint: str | None = None,
    untrained: Untrained | None = None,
    folder: Path | None = None,
) -> Page:
    """Build the page for any speech system; show it with :func:`launch`.

    Parameters
    ----------
    checkpoint
        Where the system's weights came from; None: shipped.
    untrained
        Loads the system with the teacher's weights under the window; None where there is no trained student.
    folder
        Where sounds are stored meanwhile; None: the system's temporary folder.
    """
    with Page(title=headline.TITLE, analytics_enabled=False, delete_cache=CACHE_SECONDS) as page:
        stage = page.stage = Stage(system, page, checkpoint, untrained, folder)
        gr.HTML(headline.lead())
        stage.numbers = gr.HTML(headline.example_numbers(), elem_id="numbers")
        gr.HTML(headline.example_player() + headline.terms(), elem_id="example")
        stage.history = gr.HTML(history([]), elem_id="history", render=False)  # below the tabs, which change it
        with gr.Tabs() as tabs:
            for title, build in TABS.items():
                with gr.Tab(title, id=title.lower()):
                    build(stage)
        with gr.Accordion("Your results", open=False, elem_id="results"):
            stage.history.render()
        _open_links(stage, tabs)

        def leave(request: gr.Request) -> None:
            stage.stop(request.session_hash or "")

        page.unload(leave)
    page.queue(default_concurrency_limit=None)
    return page


def _open_links(stage: Stage, tabs: gr.Tabs) -> None:
    """Fill the controls from the address, where it is a link to repeat a result."""
    controls = [component for _, named in stage.links.values() for component in named.values()]

    def fill(request: gr.Request) -> dict[Any, Any]:
        query = dict(request.query_params)
        if query.get("tab") not in stage.links:
            return {tabs: gr.skip()}
        limit, named = stage.links[query["tab"]]
        found = from_link(query, limit, {name: choices(component) for name, component in named.items()})
        opened = {"windows": "window"}.get(query["tab"], query["tab"])
        return {tabs: gr.Tabs(selected=opened)} | {named[name]: value for name, value in found.items() if name in named}

    stage.page.load(fill, None, [tabs, *controls], api_visibility="private", queue=False, show_progress="hidden")


def choices(component: Any) -> list[Any]:
    """Return the values of a component that are chosen from a list."""
    if isinstance(component, gr.Checkbox):
        return [True, False]
    return [value for _, value in getattr(component, "choices", [])]


def launch(page: Page, host: str, port: int, hosts: Iterable[str] = ()) -> str:
    """Serve the page in the background, never through a public tunnel; return its address.

    Parameters
    ----------
    hosts
        Further names that the server answers to, beside this machine's and any plain address.
    """
    fonts = ["system-ui", "sans-serif"]
    routes = [
        *page.stage.store.routes(),
        Route("/wand/ready", lambda request: PlainTextResponse("ready")),
        Mount("/wand/static", StaticFiles(directory=headline.STATIC)),
        Mount("/wand/precomputed", StaticFiles(directory=headline.PRECOMPUTED)),
    ]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=UPLOAD_LIMIT,
        prevent_thread_lock=True,
        state_session_capacity=SESSIONS,
        # Without gradio's look at its own page, which has to come within 3 s: a busy machine takes longer.
        _frontend=False,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        app_kwargs={
            "routes": routes,
            "middleware": [Middleware(Guard, hosts=own_hosts([*hosts, host]))],
            "openapi_url": None,
        },
        # Fonts by name only: the default theme fetches its own from the network.
        theme=gr.themes.Soft(font=fonts, font_mono=["ui-monospace", "monospace"], primary_hue="blue"),
        css_paths=headline.STATIC / "style.css",
        head=HEAD,
    )
    return str(address)


def wait_for_signal(page: Page, folder: Path) -> None:
    """Block until SIGINT or SIGTERM ends the process; meanwhile remove from ``folder`` what is an hour old."""
    while not threading.Event().wait(SECONDS_BETWEEN_LOOKS):
        page.stage.store.expire()
        drop_broken_uploads(folder, KEPT_SECONDS)
