"""The page: its heading, its tabs, and the server that shows it."""

from __future__ import annotations

import gradio as gr

from app.tabs import TABS
from wandlib.systems.base import SpeechSystem

UPLOAD_LIMIT = "20mb"
CACHE_SECONDS = (600, 3600)
"""How often sounds, uploads included, are checked, and their age at deletion; all are deleted when the server ends."""
WAITING_LIMIT = 16
"""Requests that may queue; one is served at a time."""

CSS = """
.gradio-container {max-width: 1280px !important; margin: 0 auto}
#heading h1 {font-size: 1.9rem; margin-bottom: .2rem}
#heading p {font-size: 1.05rem; opacity: .85}
figure {margin: 0; padding: .6rem .8rem .2rem}
figcaption {font-weight: 600; padding-bottom: .3rem}
svg.curves {width: 100%; height: auto; display: block}
.dark svg.curves polyline, .dark svg.curves text[font-weight] {filter: brightness(1.5)}
#full, #windowed {min-height: 190px}
#numbers table, #numbers table * {font-family: inherit; font-size: .8rem}
#numbers th * {padding-left: 1px; padding-right: 1px; word-break: normal !important; overflow-wrap: normal !important}
#status {min-height: 1.6rem; overflow: hidden}
#status .error, #status .clear-status {display: none}
"""


def build_app(system: SpeechSystem) -> gr.Blocks:
    """Build the page for any speech system; show it with :func:`launch`."""
    with gr.Blocks(
        title="wandlib: full attention and the window",
        analytics_enabled=False,
        delete_cache=CACHE_SECONDS,
    ) as page:
        gr.Markdown(
            "# Full attention and the window\n"
            "The same sentence, synthesized twice by the same model: once with a cache that keeps every step, once "
            "with one that keeps only the prompt and the last W steps. Listen to both, and watch what each step costs.",
            elem_id="heading",
        )
        for title, build in TABS.items():
            if len(TABS) == 1:  # a bar with a single tab would be in the way
                build(page, system)
            else:
                with gr.Tab(title):
                    build(page, system)
    page.queue(max_size=WAITING_LIMIT)
    return page


def launch(page: gr.Blocks, host: str, port: int) -> str:
    """Serve the page in the background, never through a public tunnel; return its address."""
    fonts = ["system-ui", "sans-serif"]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=UPLOAD_LIMIT,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        # Fonts by name only: the default theme fetches its own from the network.
        theme=gr.themes.Soft(font=fonts, font_mono=["ui-monospace", "monospace"], primary_hue="blue"),
        css=CSS,
    )
    return str(address)
