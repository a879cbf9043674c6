"""Which new tokens are conditioning, where the caller of a pass does not say.

In this order:

1. what the cache was made with: ``conditioning`` (a length or a mask), ``conditioning_until`` (a token);
2. inside ``generate``: its prompt is conditioning, in however many calls it comes, and what it samples is generated,
   also where a sampled token is the first one of the next turn's prompt, which shows by ``input_ids`` alone;
3. in a loop of one's own: the first call brings conditioning, and so does a later one with several tokens (text that
   streams in); a later call with one token brings a generated one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from wandlib.attention.checks import check_conditioning, check_number
from wandlib.attention.window import conditioning_until, prefix_conditioning

NO_TOKEN = -1
"""In place of the ids of padding, which may be those of tokens that mean something."""

UNKNOWN_FIRST = (
    "this cache does not hold the last token of the generate before, and inputs_embeds do not show whether they begin "
    "with it: give input_ids; or call the model itself first, on that token alone (it counts as generated) or on the "
    "new text with conditioning=<bool [batch, time]>, and generate from what follows"
)


class Kinds(NamedTuple):
    """The kinds of the new tokens of a pass."""

    conditioning: Bool[Tensor, "batch length"] | None
    """Which are conditioning; None: all."""
    ended: bool
    """Whether every later call of one token brings a generated one."""
    until_seen: Bool[Tensor, "batch 1"] | None
    """Whether the token of ``conditioning_until`` has come."""


@dataclass
class Prompt:
    """The prompt of a ``generate`` under way.

    Parameters
    ----------
    total
        Its length in tokens, those that a cache holds already included.
    in_chunks
        Whether it comes in several calls (``prefill_chunk_size``); else the first call brings all of it, also where
        the decoder sees more tokens than ``generate`` was given.
    ids
        Its last tokens, as ``generate`` was given them: some decoders are given embeddings alone. None: it was, too.
    """

    total: int
    in_chunks: bool = False
    ids: Int[Tensor, "batch time"] | None = None
    complete: bool = False
    """Whether all of it has come."""
    end: int | None = None
    """Tokens in the cache once all of it has come: where the first sampled token goes."""
    cache: Any = None
    """The cache of the decode."""

    def bind(self, cache: Any) -> None:
        """Note the cache of the decode.

        Raises
        ------
        ValueError
            If the same ``generate`` brought another one before: where the second prompt ends is not known.
        """
        if self.cache is not None and self.cache is not cache:
            raise ValueError(
                "this generate decodes in two caches, and where the prompt of the second one ends is not known under a "
                "window: generate under wandlib.full_attention(model)"
            )
        self.cache = cache

    def ids_from(self, start: int) -> Int[Tensor, "batch rest"] | None:
        """Return the ids from position ``start`` on; None where they are not known."""
        if self.ids is None or not 0 <= (first := start - self.total + self.ids.shape[1]) < self.ids.shape[1]:
            return None
        return self.ids[:, first:]

    def take(self, start: int, length: int) -> int:
        """Return how many of the ``length`` tokens from ``start`` on belong to the prompt."""
        if self.complete:
            return 0
        if self.in_chunks and start + length < self.total:
            return length
        self.complete, self.end = True, start + length
        return min(length, self.total - start) if self.in_chunks else length


class TokenKinds:
    """What a cache knows of the kinds of tokens.

    Parameters
    ----------
    conditioning, until
        As ``conditioning`` and ``conditioning_until`` of :class:`wandlib.WandCache`.

    Raises
    ------
    ValueError
        If both are given, or a length is not one.
    """

    def __init__(self, conditioning: SupportsIndex | Tensor | None, until: SupportsIndex | float | None) -> None:
        if conditioning is not None and until is not None:
            raise ValueError("give either conditioning or conditioning_until, not both")
        self.conditioning: int | Tensor | None = None
        if isinstance(conditioning, Tensor):
            self.conditioning = conditioning
        elif conditioning is not None:
            self.conditioning = check_number("conditioning, a bool tensor or a number of tokens,", conditioning)
        self.until = None if until is None else check_number("conditioning_until, a token id,", until)
        self._at_first = self.conditioning
        self.sampled: tuple[int, Int[Tensor, " batch"]] | None = None
        """The position of the token that ``generate`` sampled last and did not feed, and the token of each sequence."""

    @property
    def are_told(self) -> bool:
        """Whether what the cache was made with decides, whatever prompt the tokens are part of."""
        return self.conditioning is not None or self.until is not None

    def reset(self) -> None:
        """Know again what the cache was made with, and no more."""
        self.conditioning, self.sampled = self._at_first, None

    def select(self, index: Int[Tensor, " batch"]) -> None:
        """Make what is known of sequence ``index[b]`` the b-th one's."""
        if isinstance(self.conditioning, Tensor) and len(self.conditioning) > 1:
            self.conditioning = self.conditioning.index_select(0, index.to(self.conditioning.device))
        if self.sampled is not None:
            position, token = self.sampled
            self.sampled = position, token.index_select(0, index.to(token.device))

    def of(
        self,
        told: Bool[Tensor, "batch length"] | None,
        new: Tensor,
        start: int,
        *,
        until_seen: Tensor | None,
        input_ids: Tensor | None,
        prompt: Prompt | None,
    ) -> Kinds:
        """Tell the kinds of the ``new`` tokens from position ``start`` on, and what follows for those after them.

        Parameters
        ----------
        told
            Which are conditioning, where the caller of the pass says so, which decides.
        new
            The new tokens, [batch, length, ...].
        until_seen
            In which sequences the token of ``conditioning_until`` has come; None: in none.
        input_ids
            Ids of the new tokens, ``NO_TOKEN`` for padding; None: they came as embeddings.
        prompt
            That of the ``generate`` under way; None: a loop of one's own.

        Raises
        ------
        ValueError
            If what the cache was made with does not fit the tokens.
        """
        found = self._untold(new, start, until_seen, input_ids, prompt, required=told is None)
        return found if told is None else found._replace(conditioning=told)

    def _untold(
        self,
        new: Tensor,
        start: int,
        until_seen: Tensor | None,
        input_ids: Tensor | None,
        prompt: Prompt | None,
        required: bool,
    ) -> Kinds:
        """Tell the kinds by what the cache knows."""
        (batch, length), device = new.shape[:2], new.device
        end, given = start + length, self.conditioning
        from_prompt = length if prompt is None else prompt.take(start, length)
        if isinstance(given, int):
            rest = torch.tensor([given - start], device=device)
            kinds = None if end <= given else prefix_conditioning(rest, length).expand(batch, -1)
            return Kinds(kinds, end >= given, None)
        if given is not None:
            if given.ndim != 2 or given.shape[0] not in (1, batch) or (start == 0 and given.shape[1] < length):
                check_conditioning(given, batch, length)
            known = given[:, start:end].to(device)
            kinds = pad(known, (0, length - known.shape[1])).expand(batch, -1)
            return Kinds(check_conditioning(kinds, batch, length), end >= given.shape[1], None)
        if self.until is not None:
            if input_ids is None and not required:
                return Kinds(None, True, until_seen)
            if input_ids is None:
                raise ValueError("conditioning_until needs input_ids; with inputs_embeds give the conditioning itself")
            seen = torch.zeros(batch, 1, dtype=torch.bool, device=device) if until_seen is None else until_seen
            kinds = conditioning_until(input_ids, self.until) & ~seen
            seen = seen | (input_ids == self.until).any(1, keepdim=True)
            return Kinds(kinds, bool(seen.all()), seen)
        if prompt is None and start > 0 and length == 1:
            from_prompt = 0
        ended = prompt is None or prompt.complete
        if input_ids is None and prompt is not None and self.sampled is not None and self.sampled[0] == start:
            if prompt.ids is None and required:
                raise ValueError(UNKNOWN_FIRST)
            input_ids = prompt.ids_from(start)
        was_sampled = self._was_sampled(start, input_ids)
        if from_prompt == length and was_sampled is None:
            return Kinds(None, ended, None)
        kinds = torch.arange(length, device=device).expand(batch, -1) < from_prompt
        if was_sampled is not None:
            kinds = torch.cat([kinds[:, :1] & ~was_sampled[:, None], kinds[:, 1:]], 1)
        return Kinds(kinds, ended, None)

    def _was_sampled(self, start: int, input_ids: Tensor | None) -> Bool[Tensor, " batch"] | None:
        """In which sequences the first new token is the one that ``generate`` sampled before; None: in none."""
        if self.sampled is None or input_ids is None or self.sampled[0] != start:
            return None
        sampled = self.sampled[1].to(input_ids.device)
        if len(sampled) != len(input_ids):
            return None
        same = input_ids[:, 0] == sampled
        return same if bool(same.any()) else None
