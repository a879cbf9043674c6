"""What the notebooks need and a program does not: exercises that give hints, and drawings of the method."""

from wandlib.tutorial.drawings import curriculum, exposure_bias, streams, teacher_and_student
from wandlib.tutorial.exercises import check

__all__ = ["check", "curriculum", "exposure_bias", "streams", "teacher_and_student"]
