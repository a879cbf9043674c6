"""What the notebooks need and a program does not: exercises that give hints, and drawings of the method."""

from packaging.version import Version
from transformers import __version__

from wandlib.tutorial.drawings import curriculum, exposure_bias, streams, teacher_and_student
from wandlib.tutorial.exercises import check

__all__ = ["check", "curriculum", "exposure_bias", "streams", "teacher_and_student"]

FIRST = "5.24"
"""The first transformers whose models take ``cache=``, as the notebooks write it: others ignore it in silence."""

if Version(__version__) < Version(FIRST):
    raise ImportError(
        f"the notebooks need transformers {FIRST} or newer, and {__version__} is installed: say `%pip install "
        f"'transformers>={FIRST}'`, and restart the kernel"
    )
