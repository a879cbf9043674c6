"""CosyVoice's language model as an ordinary causal model of transformers.

A Qwen2 decoder over one table of ids (:mod:`wandlib.systems.cosyvoice2.configuration`) with a head over the codes
alone: 6564 outputs, against 158,502 rows of the table. Stock ``generate``, Trainer and PEFT, and this library's
``convert``, ``profile`` and ``attention_mass``, take it as it is.

Source: CosyVoice 2, arXiv 2412.10117, section 2.3; names and shapes of the published ``llm.pt``.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2ForCausalLM, Qwen2Model
from transformers.modeling_outputs import CausalLMOutputWithPast

from wandlib.systems.cosyvoice2.configuration import CosyVoice2Config


class CosyVoice2LM(Qwen2ForCausalLM):
    """Predict speech codes from ``[sos | text | task | speech]``.

    The forward pass takes what Qwen2's takes, and hands everything else (``conditioning``) on to the decoder. Its
    logits are [batch, time, ``config.head_size``].
    """

    config_class = CosyVoice2Config
    config: CosyVoice2Config
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012  transformers reads it off the class

    def __init__(self, config: CosyVoice2Config) -> None:
        # Qwen2's own __init__ would make a head over the whole table.
        super(Qwen2ForCausalLM, self).__init__(config)
        self.model = Qwen2Model(config)
        self.vocab_size = config.head_size
        self.loss_type = "ForCausalLM"
        self.lm_head = nn.Linear(config.hidden_size, config.head_size, bias=config.layout.head_bias)
        self.post_init()
        self.generation_config = generation_defaults(config)

    def forward(
        self,
        input_ids: Int[Tensor, "batch time"] | None = None,
        attention_mask: Any = None,
        position_ids: Int[Tensor, "batch time"] | None = None,
        *,
        labels: Int[Tensor, "batch time"] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        counted = {"num_items_in_batch": kwargs.pop("num_items_in_batch", None)}
        output = super().forward(input_ids, attention_mask, position_ids, **kwargs)
        if labels is None:
            return output
        logits = output[0] if isinstance(output, tuple) else output.logits
        loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.head_size, **counted)
        if isinstance(output, tuple):
            return (loss, *output)
        output.loss = loss
        return output


# The cache has another name in other versions of transformers: who asks for our arguments is told Qwen2's.
vars(CosyVoice2LM.forward)["__signature__"] = inspect.signature(Qwen2ForCausalLM.forward)


def generation_defaults(config: CosyVoice2Config) -> GenerationConfig:
    """Return settings for stock ``generate``: plain sampling (RAS is a logits processor) until an end token."""
    return GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        eos_token_id=config.stop_ids,
        pad_token_id=config.end,
        use_cache=True,
    )


def empty(config: CosyVoice2Config, dtype: torch.dtype | None = None) -> CosyVoice2LM:
    """Return a model whose weights have shapes and no memory yet; the rotary frequencies are there."""
    with torch.device("meta"):
        model = CosyVoice2LM(config)
    if dtype is not None:
        nn.Module.to(model, dtype)
    rotary: Any = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config)
    return model.eval()


AutoModelForCausalLM.register(CosyVoice2Config, CosyVoice2LM, exist_ok=True)
