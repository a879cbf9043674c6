"""``python -m wandlib``: the command line, also for a launcher: ``accelerate launch -m wandlib train ...``."""

from wandlib.cli.app import app

if __name__ == "__main__":
    app(prog_name="wandlib")
