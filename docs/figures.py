"""Draw the figures of this folder: ``python docs/figures.py``. The numbers are computed, no model is run."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from transformers import Qwen2Config

from wandlib.plots.costs import two_caches
from wandlib.profiling.estimate import cache_bytes

HERE = Path(__file__).parent

# CosyVoice 2-0.5B's decoder, and the mean prompt that the paper's cache sizes imply.
COSYVOICE2 = Qwen2Config(
    num_hidden_layers=24, hidden_size=896, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864
)
PROMPT, WINDOW, STEPS_PER_SECOND, SECONDS = 187, 32, 25, 30


def main() -> None:
    """Write ``two_caches.svg``."""
    steps = range(1, SECONDS * STEPS_PER_SECOND + 1)
    full, window = (
        [
            cache_bytes(COSYVOICE2, conditioning=PROMPT, generated=step, window=size, dtype=torch.float32)
            for step in steps
        ]
        for size in (None, WINDOW)
    )
    figure = two_caches(
        full,
        window,
        steps_per_second=STEPS_PER_SECOND,
        window_size=WINDOW,
        title=f"CosyVoice 2-0.5B, one utterance, prompt of {PROMPT} tokens, 32 bit (computed)",
    )
    matplotlib.rcParams["svg.hashsalt"] = "wandlib"  # the same picture is the same file
    figure.savefig(HERE / "two_caches.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
