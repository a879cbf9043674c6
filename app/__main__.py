"""``python -m app``: load the embedded voice and show the page on this machine."""

from __future__ import annotations

import argparse
import os
import sys

# Before gradio is imported, which reads it then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def main() -> None:
    """Parse the flags, load the voice, warm up, serve."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    arguments = parser.parse_args()

    from app.page import build_app, launch
    from wandlib.systems import load_system

    system = load_system("mini")
    for attention in ("full", "window"):
        system.synthesize("Ready.", attention=attention)  # a process's first steps are slow: spare the visitor
    page = build_app(system)
    try:
        address = launch(page, arguments.host, arguments.port)
    except OSError as problem:
        sys.exit(f"cannot listen on {arguments.host}:{arguments.port}: {problem}. Try another one with --port.")
    print(f"Open {address} in a browser; press Ctrl-C to stop.", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
