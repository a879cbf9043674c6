"""``python -m app``: show the page on this machine, with the embedded voice or another speech system."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from app.hosts import host_name
from app.storage import private_folder
from app.waiting import waiting_page

# Before gradio is imported, which reads it then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

REGISTRY = Path(__file__).parents[1] / "wandlib" / "systems" / "registry.py"


def main() -> None:
    """Parse the flags, show the waiting page, load the system, warm up, serve until SIGINT or SIGTERM."""
    started = time.monotonic()
    arguments = parse()

    if arguments.system not in (known := systems()):
        sys.exit(f"cannot load {arguments.system}: there is {', '.join(known)}")
    if arguments.checkpoint and not Path(arguments.checkpoint).is_dir():
        sys.exit(f"cannot load {arguments.system}: there is no folder {arguments.checkpoint!r}")

    def say(words: str) -> None:
        print(f"[{time.monotonic() - started:4.1f} s] {words}", flush=True)

    with private_folder() as folder:
        with ExitStack() as waiting:
            with listening(arguments):
                waiting.enter_context(waiting_page(arguments.host, arguments.port))
            say(f"Page on http://{arguments.host}:{arguments.port}; loading {arguments.system} ...")
            page = load(arguments, folder, say)
        from app.page import launch, wait_for_signal

        with listening(arguments):
            address = launch(page, arguments.host, arguments.port, arguments.allow_host)
        say(f"Ready: open {address} in a browser; press Ctrl-C to stop.")
        try:
            wait_for_signal(page, folder)
        except KeyboardInterrupt:
            say("Stopping.")
        finally:
            page.close()


def parse() -> argparse.Namespace:
    """Read the command line; nothing heavy is imported for that."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument(
        "--host", type=listened, default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=port, default=7860, help="port to listen on (default: 7860)")
    parser.add_argument(
        "--allow-host",
        type=allowed,
        action="append",
        default=[],
        metavar="NAME",
        help="a further name of this server, as in a proxy",
    )
    parser.add_argument("--system", default="mini", help="speech system (default: mini, the embedded voice)")
    parser.add_argument(
        "--checkpoint", "--folder", metavar="FOLDER", help="the system's weights (default: those that it comes with)"
    )
    parser.add_argument("--device", default="cpu", help="where it runs: cpu, cuda (default: cpu)")
    return parser.parse_args()


def port(given: str) -> int:
    """Read a port."""
    if not given.isdecimal() or not 0 < int(given) < 65_536:
        raise argparse.ArgumentTypeError(f"a port is between 1 and 65535, not {given}")
    return int(given)


def listened(given: str) -> str:
    """Read the address to listen on."""
    if ":" in given:
        raise argparse.ArgumentTypeError(f"the page listens on IPv4 alone, not on {given}: give 127.0.0.1 or 0.0.0.0")
    return given


def allowed(given: str) -> str:
    """Read a further name of this server."""
    try:
        return host_name(given)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def systems() -> dict[str, str]:
    """Read the registry of :mod:`wandlib.systems` without importing it, which takes seconds."""
    written = ast.parse(REGISTRY.read_text(encoding="utf-8")).body
    values = {ast.unparse(line.targets[0]): line.value for line in written if isinstance(line, ast.Assign)}
    found: dict[str, str] = ast.literal_eval(values["SYSTEMS"])
    return found


@contextmanager
def listening(arguments: argparse.Namespace) -> Iterator[None]:
    """Say what cannot be listened on."""
    try:
        yield
    except OSError as problem:
        sys.exit(f"cannot listen on {arguments.host}:{arguments.port}: {problem}. Try another one with --port.")


def load(arguments: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> Any:
    """Load the system and build the page."""
    from wandlib.systems import InputError, load_system

    def system(**options: Any) -> Any:
        return load_system(arguments.system, arguments.checkpoint, device=arguments.device, **options)

    try:
        loaded = system()
        if loaded.speakers:  # a process's first steps are slow: spare the visitor
            say("Warming up ...")
            for attention in ("full", "window"):
                loaded.synthesize("Ready.", attention=attention)
    except (InputError, OSError) as problem:
        sys.exit(f"cannot load {arguments.system}: {problem}")
    from app.page import build_app
    from app.stage import has_student

    untrained = (lambda: system(student=False)) if has_student(loaded) else None
    return build_app(loaded, checkpoint=arguments.checkpoint, untrained=untrained, folder=folder)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # while it loads
        sys.exit(130)
