"""Measurements of speech: error rates, similarity of voices, failures, scores, intervals."""

from wandlib.evaluation.measurement import SENTENCES, evaluate, reference_sounds

__all__ = ["SENTENCES", "evaluate", "reference_sounds"]
