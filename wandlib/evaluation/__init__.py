"""How good the speech is: error rates, voices, failures, intervals."""

from wandlib.evaluation.measurement import SENTENCES, evaluate, reference_sounds

__all__ = ["SENTENCES", "evaluate", "reference_sounds"]
