"""What ``generate`` knows and the decoder does not: how long the prompt is, and which token was sampled last.

A converted model's ``generate`` is transformers' own, called by an object that notes these two beforehand and
afterwards. So a prompt is conditioning however it is cut (``prefill_chunk_size``, a cached prefix,
``use_cache=False``), and what was sampled counts as generated in the next turn, too.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Iterator
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.cache.sequences import ASSISTED
from wandlib.attention.cache.token_kinds import Prompt
from wandlib.attention.checks import check_number
from wandlib.attention.hook import CONTINUOUS, WindowHook
from wandlib.attention.models import (
    ASKED_BY_ASSISTED_DECODING,
    CONTINUOUS_BATCHING,
    finished_request,
    rename_cache,
)


class WindowedGenerate:
    """Stands in for ``model.generate``: calls it, and notes where its prompt ends."""

    def __init__(self, model: Any, hook: WindowHook) -> None:
        self.model, self.hook = model, hook

    @property
    def __signature__(self) -> inspect.Signature:
        """That of transformers' own."""
        return inspect.signature(type(self.model).generate.__get__(self.model))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Generate; arguments and result are transformers' own."""
        generate, hook, thread = type(self.model).generate, self.hook, threading.get_ident()
        if hook.disabled:
            return generate(self.model, *args, **kwargs)
        kwargs = rename_cache(kwargs, hook.decoder.cache)
        if self._setting("guidance_scale", kwargs) not in (None, 1):
            raise ValueError(
                "guidance_scale decodes a second prompt in a cache of its own, whose end is not known under a window: "
                "leave it out, or generate under wandlib.full_attention(model)"
            )
        ids = args[0] if args else next((kwargs[n] for n in ("inputs", "input_ids") if kwargs.get(n) is not None), None)
        embeds, mask = kwargs.get("inputs_embeds"), kwargs.get("attention_mask")
        lengths = [given.shape[1] for given in (embeds if embeds is not None else ids,) if isinstance(given, Tensor)]
        if isinstance(mask, Tensor) and mask.ndim == 2:
            lengths.append(mask.shape[1])  # of the whole sequence, where only its new part is given as tokens
        known = ids if isinstance(ids, Tensor) and embeds is None else None
        in_chunks = bool(self._setting("prefill_chunk_size", kwargs))
        prompt = Prompt(max(lengths, default=1), in_chunks=in_chunks, ids=known)
        outer = hook.prompts.get(thread)
        hook.prompts[thread] = prompt
        try:
            output = generate(self.model, *args, **kwargs)
        finally:
            hook.prompts.pop(thread)
            if outer is not None:
                hook.prompts[thread] = outer
        if prompt.end is not None:  # what is returned begins with the ids that were given; with embeddings, none
            first = prompt.end - (ids.shape[1] if isinstance(ids, Tensor) else 0)
            note_sampled(prompt.cache, getattr(output, "sequences", output), first)
        return output

    def _setting(self, name: str, kwargs: dict[str, Any]) -> Any:
        """Return a setting of generation, as `generate` finds it."""
        config = kwargs.get("generation_config") or getattr(self.model, "generation_config", None)
        return kwargs.get(name, getattr(config, name, None))


def note_sampled(cache: WandCache | None, sequences: Any, first: int) -> None:
    """Note on a cache which token ``generate`` sampled last and did not feed: the next turn's prompt begins with it.

    Parameters
    ----------
    sequences
        What `generate` returned, [batch, time].
    first
        Position of its first token.
    """
    if cache is None or not isinstance(sequences, Tensor) or sequences.ndim != 2:
        return
    position = int(cache.get_seq_length())
    if len(sequences) == cache.batch_size and 0 <= position - first < sequences.shape[1]:
        cache.kinds.sampled = position, sequences[:, position - first].clone()


class BatchedGenerate:
    """Stands in for ``model.generate_batch``: the same requests and results, by ``generate`` over padded batches.

    Continuous batching brings a paged cache of its own, which knows no window, and runs in a thread of its own, which
    does not know that its caller asked for full attention.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(
        self,
        inputs: list[list[int]],
        generation_config: Any = None,
        *args: Any,
        batch_size: SupportsIndex | float = 16,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Generate for each prompt, ``batch_size`` prompts at a time; results are transformers' own, by request.

        Raises
        ------
        ValueError
            For options of continuous batching that plain batches do not have, and for a prompt without tokens.
        """
        unknown = [name for name, value in kwargs.items() if value and name not in ("max_new_tokens", "warmup")]
        if args or unknown:
            raise ValueError(
                f"generate_batch of a converted model runs generate over padded batches, which does not have "
                f"{', '.join(unknown) or 'further positional arguments'}: leave it out, or convert "
                "the model back with wandlib.restore(model)"
            )
        size = check_number("batch_size", batch_size, 1)
        if empty := [index for index, prompt in enumerate(inputs) if not len(prompt)]:
            raise ValueError(f"prompt {empty[0]} has no tokens: leave it out")
        config = copy.deepcopy(generation_config or self.model.generation_config)
        config.return_dict_in_generate = False
        config.max_new_tokens = kwargs.get("max_new_tokens") or config.max_new_tokens
        given = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        ends = [token for token in given if token is not None and token >= 0]
        if ends or None in given:  # else -1, never, which stays: for None, generate looks in the model's own config
            config.eos_token_id = ends or None
        config.pad_token_id = 0 if config.pad_token_id is None else config.pad_token_id
        results: dict[str, Any] = {}
        for start in range(0, len(inputs), size):
            prompts = inputs[start : start + size]
            for prompt, generated in self._generate(prompts, config, ends):
                name = f"req_{len(results)}"
                results[name] = finished_request(name, prompt, generated)
        return results

    def _generate(
        self, prompts: list[list[int]], config: Any, ends: list[int]
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Yield each prompt, as often as it is answered, with what was generated."""
        longest, device = max(map(len, prompts)), self.model.device
        ids = torch.full((len(prompts), longest), config.pad_token_id, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, longest - len(prompt) :] = 1
        sequences = self.model.generate(ids, attention_mask=mask, generation_config=config)
        times = len(sequences) // len(prompts)
        for row, tokens in enumerate(sequences[:, longest:].tolist()):
            end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
            yield list(prompts[row // times]), tokens[:end]


class RefuseContinuousBatching:
    """Stands in for the other entries to continuous batching, which runs in a thread of its own: refuses it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ValueError."""
        raise ValueError(f"{self.name} of a converted model: {CONTINUOUS}")


class RefuseAssistedDecoding:
    """Stands in for an attribute whose truth only assisted decoding asks: says no, and why."""

    def __init__(self, hook: WindowHook) -> None:
        self.hook = hook

    def __bool__(self) -> bool:
        if self.hook.disabled:
            return False
        raise ValueError(ASSISTED)


def stand_ins(model: Any, hook: WindowHook) -> dict[str, Any]:
    """Return the attributes to set on a converted model, by name."""
    found: dict[str, Any] = {ASKED_BY_ASSISTED_DECODING: RefuseAssistedDecoding(hook)}
    if hasattr(type(model), "generate"):
        found["generate"] = WindowedGenerate(model, hook)
    if hasattr(type(model), "generate_batch"):
        found["generate_batch"] = BatchedGenerate(model)
    refused = (name for name in CONTINUOUS_BATCHING if hasattr(type(model), name))
    return found | {name: RefuseContinuousBatching(name) for name in refused}
