"""The hooks that apply a window to a decoder: what :func:`wandlib.convert` registers.

A forward pre-hook on the base decoder (the module that owns the layers) does the work, and a hook after the pass checks
that it was heeded; the model's own code, Trainer and PEFT run unmodified. Each pass of the decoder

- decodes with a :class:`~wandlib.WandCache`, which plans the pass and in the end checks that every layer read it;
- or, without a cache (training, scoring), gets the 4-D mask of :mod:`wandlib.attention.window`, hard or soft, and in
  the end it is checked that every layer read that;
- or is refused, with the reason and the cure.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.cache.layers import locate_nonfinite
from wandlib.attention.cache.masks import padding_of, with_positions
from wandlib.attention.cache.token_kinds import Prompt
from wandlib.attention.checks import check_block, check_conditioning, check_pinned
from wandlib.attention.models import (
    WINDOW_ARGUMENTS,
    Decoder,
    MaskReaders,
    argument,
    attention_implementation,
    new_tokens,
    other_cache,
    rename_cache,
)
from wandlib.attention.window import UNBOUNDED, additive_mask, block_mask, packed_utterances, text_blocks, tokens

UNTOLD = (
    "a converted model that trains or scores must be told which tokens are conditioning: pass conditioning=<bool "
    "tensor [batch, time]> to its forward, or in eval mode use_cache=True where all are a prompt to decode from; or "
    "run it under wandlib.full_attention(model)"
)
CONTINUOUS = (
    "continuous batching brings a paged cache of its own, which knows no window: call generate or generate_batch, or "
    "convert the model back with wandlib.restore(model)"
)


class WindowHook:
    """The hooks and the window's settings; ``base_decoder(model).wand`` of a converted model.

    Parameters
    ----------
    decoder
        What is known of the base decoder.
    window
        Generated keys that a query sees, its own included.
    conditioning_until
        Token id that ends conditioning which the model generates itself, or None.
    blocks, pinned
        As for :class:`~wandlib.WandCache`.
    """

    def __init__(
        self,
        decoder: Decoder,
        window: int,
        conditioning_until: int | None = None,
        blocks: int | None = None,
        pinned: int | None = None,
    ) -> None:
        self.decoder, self.window, self.conditioning_until = decoder, window, conditioning_until
        self.blocks, self.pinned = blocks, pinned
        self.tau = float("inf")
        """Strength of the soft mask in passes without a cache; ``inf``: the hard window."""
        self.suspended: dict[int, int] = {}
        """How deep each thread is inside :func:`wandlib.full_attention`."""
        self.prompts: dict[int, Prompt] = {}
        """The prompt of the ``generate`` under way in each thread."""
        self.told: dict[int, dict[str, Any]] = {}
        """``conditioning`` and ``block`` of the pass under way in each thread, past the model's forward."""
        self.readers: dict[int, MaskReaders] = {}
        """Who reads the mask of the pass under way in each thread."""
        self.config: Any = None
        """The config that keeps these settings."""
        self.handles: list[Any] = []
        self.legacy: dict[str, Any] = {}
        """What was added to the config for older releases of transformers."""
        self.replaced: dict[str, Any] = {}
        """What stood there before."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what threads have under way: a copy of the model has nothing under way."""
        return vars(self) | {"suspended": {}, "prompts": {}, "told": {}, "readers": {}}

    @property
    def settings(self) -> dict[str, Any]:
        """What ``config.wand`` keeps, and :func:`wandlib.convert` takes."""
        kept = {"window": self.window, "conditioning_until": self.conditioning_until}
        return kept if self.blocks is None else kept | {"blocks": self.blocks, "pinned": self.pinned}

    @property
    def disabled(self) -> bool:
        """Whether this thread runs under full attention."""
        return bool(self.suspended) and threading.get_ident() in self.suspended

    @property
    def prompt(self) -> Prompt | None:
        """The prompt of the ``generate`` under way in this thread, if there is one."""
        return self.prompts.get(threading.get_ident()) if self.prompts else None

    # --------------------------------------------------------------------------------------- around the model's forward

    def pre_model(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Rename the cache to this release's name, and hand ``conditioning`` and ``block`` to the decoder directly.

        Some heads take any keyword and drop it (Falcon, GPT-J, BLOOM).
        """
        kwargs = rename_cache(kwargs, self.decoder.cache)
        if self.told:  # by a pass that did not reach the decoder
            self.told.pop(_thread(), None)
        told = {name: kwargs[name] for name in WINDOW_ARGUMENTS if kwargs.get(name) is not None}
        if not self.disabled:
            if "conditioning" not in told and argument(model, "labels", args, kwargs) is not None:
                raise ValueError(UNTOLD)
            if told:
                self.told[_thread()] = told
        return args, _without(kwargs, *WINDOW_ARGUMENTS)

    def check_finite(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Stop a generation whose logits are NaN or infinite."""
        cache, logits = getattr(output, self.decoder.cache, None), getattr(output, "logits", None)
        if not isinstance(cache, WandCache) or logits is None or torch.compiler.is_compiling():
            return
        if logits.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        # The maximum: NaN comes through it, while a token that a model rules out with -inf does not disturb it.
        last = logits if logits.shape[1] == 1 else logits[:, -1]
        highest = last.amax().item()
        if highest != highest or highest == float("inf"):
            step, held = int(torch.as_tensor(cache.generated).max()), [cache[n] for n in range(len(cache.layers))]
            raise FloatingPointError(f"the logits of generation step {step} are not finite; {locate_nonfinite(held)}")

    # ----------------------------------------------------------------------------------------- around the base decoder

    def pre_forward(self, module: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Plan the forward pass that is about to start."""
        kwargs = self.decoder.keywords(args, kwargs)
        if self.disabled:
            return (), _without(kwargs, *WINDOW_ARGUMENTS)
        if self.told:
            kwargs = kwargs | self.told.pop(_thread(), {})
        if self.readers:  # a hook around an earlier pass has raised
            self.abandon()
        name, given = self.decoder.cache, kwargs.get(self.decoder.cache)
        cache = self._cache(module, kwargs)
        if cache is None:
            return (), self._without_cache(module, kwargs)
        kwargs = cache.prepare(kwargs, self.decoder, module, self.prompt)
        kwargs[name] = WandCache.adopt(given, cache) if type(given) is DynamicCache else cache
        if not torch.compiler.is_compiling() and cache.watched:
            self._watch(module, kwargs["attention_mask"])
        return (), kwargs

    def post_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Check that the pass went as planned."""
        if self.readers and not self.disabled:
            read_by, layers = self._read_by(threading.get_ident()), len(self.decoder.sliding_windows)
            if read_by is not None and len(read_by) < layers:
                raise RuntimeError(
                    f"{self.decoder.name} gave the window's mask to {len(read_by)} of its {layers} attention layers, "
                    "so what it returned did not obey the window; run it under wandlib.full_attention(model), or "
                    "report its class and your transformers release"
                )
        cache = kwargs.get(self.decoder.cache)
        return cache.finish(output, self.decoder) if isinstance(cache, WandCache) else output

    def _cache(self, module: PreTrainedModel, kwargs: dict[str, Any]) -> WandCache | None:
        """Return the cache of this pass: the caller's, or ours in place of an ordinary one that is still empty."""
        past = ours = kwargs.get(self.decoder.cache)
        if not isinstance(past, WandCache):
            self._refuse_others(module, kwargs)
            if past is None and not self._wants_cache(module, kwargs):
                return None
            ours = self._in_place_of(past, module)
        if (prompt := self.prompt) is not None:
            prompt.bind(ours if past is None else past)  # the object that comes again with the next pass
        return ours

    def _wants_cache(self, module: PreTrainedModel, kwargs: dict[str, Any]) -> bool:
        """Return whether a pass that brings no cache is to have one, and put it down as ``use_cache``."""
        told, asked = kwargs.get("conditioning") is not None, kwargs.get("use_cache")
        if not told and self.prompt is None and (module.training or asked is None):
            raise ValueError(UNTOLD)
        if asked is None:  # a pass that says what is conditioning is to train or to score
            kwargs["use_cache"] = getattr(module.config, "use_cache", False) and not module.training and not told
        return bool(kwargs["use_cache"])

    def _in_place_of(self, past: Any, module: PreTrainedModel) -> WandCache:
        """Return a new cache in place of none, or of an ordinary one that is still empty; refuse any other."""
        name, stock = self.decoder.cache, type(past) is DynamicCache and not past.offloading
        if past is None or (stock and past.get_seq_length() == 0):
            return WandCache(module.config, **self.settings)
        if not isinstance(past, Cache):
            raise ValueError(
                f"a {type(past).__name__} of keys and values is no cache of this release: pass "
                f"{name}=WandCache(model.config) or nothing"
            )
        raise ValueError(
            f"a converted model decodes with a WandCache, not with this {type(past).__name__} that holds "
            f"{int(past.get_seq_length())} tokens: pass {name}=WandCache(model.config) (static=True in place of a "
            "StaticCache) or nothing, or run under wandlib.full_attention(model)"
        )

    def _refuse_others(self, module: PreTrainedModel, kwargs: dict[str, Any]) -> None:
        """Raise ValueError for a pass whose keys are not all in the sequence and in one cache of a known kind."""
        other = other_cache(kwargs, self.decoder.cache)
        if other is not None or "paged" in attention_implementation(module):
            raise ValueError(f"this pass brings a cache of its own ({other or 'paged attention'}): {CONTINUOUS}")
        if kwargs.get("encoder_hidden_states") is not None:
            raise ValueError(
                "encoder_hidden_states are keys outside of the sequence, on which a window has no say: leave them out, "
                "or run under wandlib.full_attention(model)"
            )

    def _without_cache(self, module: PreTrainedModel, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Training and scoring: the rule as a mask over the whole sequence."""
        new, mask = new_tokens(kwargs), kwargs.get("attention_mask")
        conditioning, block = kwargs.pop("conditioning", None), kwargs.pop("block", None)
        if conditioning is None and (prompt := self.prompt) is not None:  # generate(use_cache=False)
            if self.conditioning_until is not None:
                raise ValueError("conditioning_until is counted in the cache: leave out use_cache=False")
            conditioning = (torch.arange(new.shape[1], device=new.device) < prompt.total).expand(len(new), -1)
        if conditioning is None:
            raise ValueError(UNTOLD)
        check_conditioning(conditioning, *new.shape[:2])
        padding = padding_of(mask, len(new), 0, new.shape[1], self.decoder.sliding_windows)
        blocks = UNBOUNDED if self.blocks is None else self.blocks
        utterance = self._utterances(kwargs, new, padding)
        if block is not None:
            check_block(block, len(new), new.shape[1], padding)
        elif self.blocks is not None:
            check_pinned(self.pinned, utterance)
            block = text_blocks(conditioning, padding, self.pinned or 0)
        sequence = tokens(conditioning, padding, block=block, utterance=utterance)
        if attention_implementation(module) == "flex_attention" and self.tau == float("inf"):
            made: Any = partial(block_mask, sequence, self.window, blocks=blocks)
        else:
            dtype = next(module.parameters()).dtype
            made = partial(additive_mask, sequence, sequence, self.window, dtype, self.tau, blocks=blocks)
        masks = {limit: made(sliding_window=limit) for limit in set(self.decoder.sliding_windows)}
        kwargs = with_positions(kwargs, self.decoder, 0)
        kwargs["attention_mask"] = self.decoder.layer_masks(masks)
        if not torch.compiler.is_compiling():
            self._watch(module, kwargs["attention_mask"])
        return kwargs

    def _utterances(self, kwargs: dict[str, Any], new: Tensor, padding: Tensor | None) -> Tensor | None:
        """Tell the utterances packed into each row apart by a number; None: one a row."""
        if any(kwargs.get(name) is not None for name in ("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx")):
            raise ValueError(
                "utterances packed by cu_seq_lens are not told apart under a window: pass position_ids that start "
                "again with each of them, [batch, time], and no cu_seq_lens"
            )
        position_ids = kwargs.get("position_ids")
        if position_ids is None or position_ids.ndim != 2:
            return None
        return packed_utterances(position_ids.expand(len(new), -1), padding)

    def _watch(self, module: nn.Module, masks: Any) -> None:
        """See from now on who reads the masks of the pass under way; where a CUDA graph is captured, nothing can."""
        if next(module.parameters()).is_cuda and torch.cuda.is_current_stream_capturing():
            return
        self.readers[threading.get_ident()] = MaskReaders(module, masks if isinstance(masks, dict) else {None: masks})

    def _read_by(self, thread: int) -> set[int] | None:
        """Stop watching who reads the mask; return the layers that did."""
        readers = self.readers.pop(thread, None)
        return None if readers is None else readers.stop()

    def abandon(self) -> None:
        """Let go of what this thread's pass held: it has raised."""
        thread = _thread()
        self.told.pop(thread, None)
        self._read_by(thread)


def _thread() -> int:
    """Tell the threads apart by a number; 0 for one that compiles, since a graph cannot ask."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _without(kwargs: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a call's arguments without some of them."""
    return {name: value for name, value in kwargs.items() if name not in names}
