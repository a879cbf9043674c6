"""``python -m app``: load a speech system, the embedded voice by default, and show the page on this machine."""

from __future__ import annotations

import argparse
import os
import sys

# Before gradio is imported, which reads it then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def main() -> None:
    """Parse the flags, load the system, warm up, serve."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    parser.add_argument("--system", default="mini", help="speech system (default: mini, the embedded voice)")
    parser.add_argument("--folder", help="the system's checkpoint (default: the weights that it comes with)")
    parser.add_argument("--device", default="cpu", help="where it runs: cpu, cuda (default: cpu)")
    arguments = parser.parse_args()

    from app.page import build_app, launch
    from wandlib.systems import InputError, load_system

    try:
        system = load_system(arguments.system, arguments.folder, device=arguments.device)
    except (InputError, OSError) as problem:
        sys.exit(f"cannot load {arguments.system}: {problem}")
    if system.speakers:  # a process's first steps are slow: spare the visitor
        for attention in ("full", "window"):
            system.synthesize("Ready.", attention=attention)
    page = build_app(system)
    try:
        address = launch(page, arguments.host, arguments.port)
    except OSError as problem:
        sys.exit(f"cannot listen on {arguments.host}:{arguments.port}: {problem}. Try another one with --port.")
    print(f"Open {address} in a browser; press Ctrl-C to stop.", flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
