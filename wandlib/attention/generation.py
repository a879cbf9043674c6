"""What ``generate`` knows and the decoder does not: how long the prompt is, and which token was sampled last.

A converted model's ``generate`` is transformers' own, called by an object that notes these two beforehand and
afterwards. So a prompt is conditioning however it is cut (``prefill_chunk_size``, a cached prefix, ``use_cache=False``),
and what was sampled counts as generated in the next turn, too.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any, NoReturn

from torch import Tensor

from wandlib.attention.cache.cache import ASSISTED, WandCache
from wandlib.attention.cache.token_kinds import Prompt
from wandlib.attention.hook import CONTINUOUS, WindowHook
from wandlib.attention.models import rename_cache

BATCHED = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
"""The entries to continuous batching."""


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
        ids = args[0] if args else next((kwargs[n] for n in ("inputs", "input_ids") if kwargs.get(n) is not None), None)
        embeds, mask = kwargs.get("inputs_embeds"), kwargs.get("attention_mask")
        lengths = [given.shape[1] for given in (embeds if embeds is not None else ids,) if isinstance(given, Tensor)]
        if isinstance(mask, Tensor) and mask.ndim == 2:
            lengths.append(mask.shape[1])  # of the whole sequence, where only its new part is given as tokens
        prompt = Prompt(max(lengths, default=1), in_chunks=bool(self._setting("prefill_chunk_size", kwargs)))
        outer = hook.prompts.get(thread)
        hook.prompts[thread] = prompt
        try:
            output = generate(self.model, *args, **kwargs)
        finally:
            hook.prompts.pop(thread)
            if outer is not None:
                hook.prompts[thread] = outer
        first = 0 if isinstance(ids, Tensor) else prompt.total  # from embeddings, only new tokens are returned
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


class RefuseContinuousBatching:
    """Stands in for the entries to continuous batching: refuses it, except under full attention."""

    def __init__(self, model: Any, hook: WindowHook, name: str) -> None:
        self.model, self.hook, self.name = model, hook, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ValueError, or do what transformers' own does."""
        if self.hook.disabled:
            return getattr(type(self.model), self.name)(self.model, *args, **kwargs)
        return self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(f"{self.name} of a converted model: {CONTINUOUS}")


class RefuseAssistedDecoding:
    """Stands in for ``model._is_stateful``, whose truth only assisted decoding asks: says no, and why."""

    def __init__(self, hook: WindowHook) -> None:
        self.hook = hook

    def __bool__(self) -> bool:
        if self.hook.disabled:
            return False
        raise ValueError(ASSISTED)


def stand_ins(model: Any, hook: WindowHook) -> dict[str, Any]:
    """Return the attributes to set on a converted model, by name."""
    found: dict[str, Any] = {"_is_stateful": RefuseAssistedDecoding(hook)}
    if hasattr(type(model), "generate"):
        found["generate"] = WindowedGenerate(model, hook)
    refused = (name for name in BATCHED if hasattr(type(model), name))
    return found | {name: RefuseContinuousBatching(model, hook, name) for name in refused}
