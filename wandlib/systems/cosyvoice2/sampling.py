"""Repetition-aware sampling (RAS), as a function and as a logits processor for stock ``generate``.

Draw a token from the nucleus. If it was among the last ``history`` generated tokens at least
``history * tolerance`` times, rule it out and draw from the whole distribution instead::

    nucleus: the most likely tokens, while their probabilities before this one sum to less than top_p, at most top_k

Source: VALL-E 2, arXiv 2406.05370, section 3.2; the numbers are CosyVoice 2's published settings. There is no
temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor


@dataclass(frozen=True)
class RepetitionAware:
    """The settings of RAS.

    Attributes
    ----------
    top_p
        The nucleus ends with the token whose predecessors reach this probability.
    top_k
        Tokens in the nucleus, at most.
    history
        Generated tokens that are searched for a repetition.
    tolerance
        Part of the history that may be the same token.
    """

    top_p: float = 0.8
    top_k: int = 25
    history: int = 10
    tolerance: float = 0.1

    def candidate(self, logits: Float[Tensor, " vocabulary"], generator: torch.Generator | None = None) -> int:
        """Draw a token from the nucleus."""
        probabilities, order = logits.softmax(-1).sort(descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        size = max(1, min(self.top_k, int((before < self.top_p).sum())))
        return int(order[torch.multinomial(probabilities[:size], 1, generator=generator)])

    def repeats(self, token: int, past: list[int]) -> bool:
        """Whether the last generated tokens hold ``token`` too often."""
        return past[-self.history :].count(token) >= self.history * self.tolerance

    def __call__(
        self, logits: Float[Tensor, " vocabulary"], past: list[int], generator: torch.Generator | None = None
    ) -> int:
        """Draw the next token.

        Parameters
        ----------
        logits
            Scores of the next token; -inf rules one out.
        past
            Tokens generated so far, without the prompt.
        generator
            Where the randomness comes from; it must be on the logits' device. None: torch's global one.
        """
        token = self.candidate(logits, generator)
        if not self.repeats(token, past):
            return token
        others = logits.clone()
        others[token] = -torch.inf
        return int(torch.multinomial(others.softmax(-1), 1, generator=generator))


class RepetitionAwareSampling(LogitsProcessor):
    """RAS inside ``generate(do_sample=True)``: leave a single token, or all but the repeated one.

    Parameters
    ----------
    prompt_length
        Tokens of the prompt: RAS looks at what comes after them.
    settings
        Of RAS; None: CosyVoice 2's.
    seed
        Seed of the draws from the nucleus; ``generate`` itself draws from torch's global generator.
    """

    def __init__(self, prompt_length: int, settings: RepetitionAware | None = None, seed: int = 0) -> None:
        self.prompt_length, self.settings, self.seed = prompt_length, settings or RepetitionAware(), seed
        self.generators: dict[torch.device, torch.Generator] = {}

    def __call__(
        self, input_ids: Int[Tensor, "batch time"], scores: Float[Tensor, "batch vocabulary"]
    ) -> Float[Tensor, "batch vocabulary"]:
        if scores.device not in self.generators:
            self.generators[scores.device] = torch.Generator(scores.device).manual_seed(self.seed)
        left = torch.full_like(scores, -torch.inf)
        for row, past in enumerate(input_ids[:, self.prompt_length :].tolist()):
            token = self.settings.candidate(scores[row], self.generators[scores.device])
            if self.settings.repeats(token, past):
                left[row] = scores[row]
                left[row, token] = -torch.inf
            else:
                left[row, token] = 0.0
        return left


class MinimumLength(LogitsProcessor):
    """Rule one end token out until there are enough codes.

    CosyVoice rules out the end token alone: the other ids that are no codes can still end an utterance early, here as
    upstream.

    Parameters
    ----------
    prompt_length
        Tokens of the prompt.
    minimum
        Codes to generate at least.
    end
        Id of the end token.
    """

    def __init__(self, prompt_length: int, minimum: int, end: int) -> None:
        self.prompt_length, self.minimum, self.end = prompt_length, minimum, end

    def __call__(
        self, input_ids: Int[Tensor, "batch time"], scores: Float[Tensor, "batch vocabulary"]
    ) -> Float[Tensor, "batch vocabulary"]:
        if input_ids.shape[1] - self.prompt_length >= self.minimum:
            return scores
        scores = scores.clone()
        scores[:, self.end] = -torch.inf
        return scores


class Chooser:
    """Choose the codes of one utterance: RAS, the end token ruled out until there are enough.

    Parameters
    ----------
    sampling
        How a code is drawn.
    minimum
        Codes to generate at least.
    end
        The token that is ruled out before.
    generator
        Of the draws, on the CPU: a seed means the same on every device.
    """

    def __init__(self, sampling: RepetitionAware, minimum: int, end: int, generator: torch.Generator) -> None:
        self.sampling, self.minimum, self.generator = sampling, minimum, generator
        self.end = torch.tensor([end])

    def __call__(self, scores: Float[Tensor, " vocabulary"], past: list[int]) -> int:
        """Return the next token."""
        scores = scores.float().cpu()
        if len(past) < self.minimum:
            scores = scores.index_fill(0, self.end, -torch.inf)
        return self.sampling(scores, past, self.generator)


@dataclass(frozen=True)
class LengthRule:
    """How many codes a text may become: a minimum and a maximum for each token of the text, the prompt's left out."""

    minimum_per_token: float = 2
    maximum_per_token: float = 20

    def minimum(self, text_tokens: int) -> int:
        """Codes before which the end token is ruled out."""
        return int(text_tokens * self.minimum_per_token)

    def maximum(self, text_tokens: int) -> int:
        """Codes at which generation stops."""
        return int(text_tokens * self.maximum_per_token)
