"""IndexTTS 1.5's language model: a GPT-2 without its own embeddings, over voice latents, text and codes.

    [32 latents | start text end | start_code] codes ... end_code

Text and codes have learned positions of their own, counted from their start token; the latents have none. Code n of
an utterance (from 0) is *decoded* at position n + 2 and *read again* for the vocoder at position n + 1: upstream has it
so, and the published weights were evaluated so (Zhou et al., arXiv 2502.05512; code at tag v1.5.0).

In training a whole sequence comes as ``input_ids`` of one vocabulary, and the latents beside it::

    0 .. C-1 codes, start and end among them | C .. C+T-1 text | C+T a latent's place
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, GPT2Config, GPT2Model, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from wandlib.attention.cache.cache import WandCache
from wandlib.attention.models import cache_inputs
from wandlib.systems.base import InputError
from wandlib.systems.indextts.positions import NoPositions, Positions

FIRST_DECODED = 2
"""Position of the first code while decoding."""


class IndexConfig(GPT2Config):
    """Sizes and special tokens; ``vocab_size`` is that of the codes.

    Parameters
    ----------
    text_size
        Rows of the text's embedding.
    code_positions, text_positions
        Rows of the tables of positions: limits that no window lifts.
    start_text, end_text, start_code, end_code
        Special tokens.
    """

    model_type = "indextts"

    def __init__(
        self,
        text_size: int = 12_001,
        code_positions: int = 803,
        text_positions: int = 602,
        start_text: int = 0,
        end_text: int = 1,
        start_code: int = 8192,
        end_code: int = 8193,
        vocab_size: int = 8194,
        **kwargs: Any,
    ) -> None:
        self.text_size, self.code_positions, self.text_positions = text_size, code_positions, text_positions
        self.start_text, self.end_text, self.start_code, self.end_code = start_text, end_text, start_code, end_code
        kwargs = {
            "bos_token_id": start_code,
            "eos_token_id": end_code,
            "pad_token_id": end_code,
            "tie_word_embeddings": False,
            **kwargs,
        }
        super().__init__(vocab_size=vocab_size, **kwargs)

    @property
    def most_codes(self) -> int:
        """Codes an utterance can have."""
        return self.code_positions - 2

    @property
    def latent_token(self) -> int:
        """What stands for a latent in ``input_ids`` of a whole sequence."""
        return int(self.vocab_size + self.text_size)

    @property
    def input_size(self) -> int:
        """Tokens of the joint vocabulary of whole sequences."""
        return self.latent_token + 1


class IndexLM(PreTrainedModel, GenerationMixin):
    """The language model, for ``generate``, :func:`wandlib.convert` and training.

    Parameters
    ----------
    config
        Sizes.
    """

    config_class = IndexConfig
    base_model_prefix = "gpt"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        width = config.n_embd
        self.text_embedding = nn.Embedding(config.text_size, width)
        self.mel_embedding: nn.Module = nn.Embedding(config.vocab_size, width)
        self.text_pos_embedding = Positions(config.text_positions, width)
        self.mel_pos_embedding = Positions(config.code_positions, width)
        decoder: Any = GPT2Model(config)
        decoder.wpe = NoPositions()
        del decoder.wte
        self.gpt: GPT2Model = decoder
        self.final_norm = nn.LayerNorm(width)
        self.text_head = nn.Linear(width, config.text_size)
        self.mel_head = nn.Linear(width, config.vocab_size)
        self.post_init()

    def get_decoder(self) -> GPT2Model:
        """Return the module that owns the layers."""
        return self.gpt

    def get_input_embeddings(self) -> nn.Module:
        """Embedding of the codes."""
        return self.mel_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the codes."""
        self.mel_embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """Head of the codes; the head of the text is for training upstream alone."""
        return self.mel_head

    def prefix(
        self, latents: Float[Tensor, "1 latents width"], text: Int[Tensor, "1 text"]
    ) -> Float[Tensor, "1 prefix width"]:
        """Embedded prompt, up to and with the start token of the codes.

        Raises
        ------
        InputError
            If the text has more tokens than there are positions.
        """
        config = self.config
        if text.shape[1] + 2 > config.text_positions:
            raise InputError(
                f"a part of the text has {text.shape[1]} tokens, the model has positions for "
                f"{config.text_positions - 2}: split it"
            )
        framed = nn.functional.pad(text, (1, 0), value=config.start_text)
        framed = nn.functional.pad(framed, (0, 1), value=config.end_text)
        place = torch.arange(framed.shape[1], device=text.device)[None]
        start = torch.full_like(framed[:, :1], config.start_code)
        return torch.cat(
            (
                latents,
                self.text_embedding(framed) + self.text_pos_embedding(place),
                self.embed_codes(start, torch.zeros_like(start)),
            ),
            dim=1,
        )

    def embed_codes(
        self, codes: Int[Tensor, "batch time"], positions: Int[Tensor, "#batch time"]
    ) -> Float[Tensor, "batch time width"]:
        """Embedded codes at positions of their own.

        Raises
        ------
        InputError
            If a position is beyond the table: the limit of the model, which no window lifts.
        """
        if not torch.compiler.is_compiling() and int(positions.max()) >= self.config.code_positions:
            raise InputError(
                f"IndexTTS has learned positions for {self.config.most_codes} codes an utterance, and no window lifts "
                "that: a window bounds memory, not length. Split the text into more parts"
            )
        embedded: Tensor = self.mel_embedding(codes) + self.mel_pos_embedding(positions)
        return embedded

    def embed_sequence(
        self,
        input_ids: Int[Tensor, "batch time"],
        latents: Float[Tensor, "batch latents width"],
        attention_mask: Tensor | None = None,
    ) -> Float[Tensor, "batch time width"]:
        """Embedded sequence of the joint vocabulary, positions counted from each start token."""
        codes, texts = self.config.vocab_size, self.config.text_size
        is_code, is_latent = input_ids < codes, input_ids == self.config.latent_token
        real = torch.ones_like(is_code) if attention_mask is None else attention_mask.bool()
        is_text = ~is_code & ~is_latent
        code_place = ((is_code & real).cumsum(1) - 1).clamp_min(0)
        text_place = ((is_text & real).cumsum(1) - 1).clamp_min(0)
        as_code = self.embed_codes(input_ids.where(is_code, 0), code_place)
        as_text = self.text_embedding((input_ids - codes).clamp(0, texts - 1)) + self.text_pos_embedding(text_place)
        embedded = torch.where(is_code.unsqueeze(-1), as_code, as_text)
        return embedded.masked_scatter((is_latent & real).unsqueeze(-1), latents.to(embedded.dtype))

    def forward(
        self,
        input_ids: Int[Tensor, "batch time"] | None = None,
        inputs_embeds: Float[Tensor, "batch time width"] | None = None,
        latents: Float[Tensor, "batch latents width"] | None = None,
        code_positions: Int[Tensor, "#batch time"] | None = None,
        attention_mask: Any = None,
        cache: Any = None,
        past_key_values: Any = None,
        labels: Int[Tensor, "batch time"] | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithCrossAttentions:
        """Logits of the next code.

        Parameters
        ----------
        input_ids
            Codes; with ``latents`` a whole sequence of the joint vocabulary.
        inputs_embeds
            In their place: an embedded prompt, see :meth:`prefix`.
        latents
            Of the voice, one row for each sequence.
        code_positions
            Of the codes; by default they go on from the length of the cache.
        labels
            Codes to predict, aligned with ``input_ids``, -100 where there is none.
        kwargs
            For the decoder: ``conditioning``, ``use_cache``, ``position_ids``.
        """
        held = cache if cache is not None else past_key_values
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("pass input_ids or inputs_embeds")
            if latents is not None:
                inputs_embeds = self.embed_sequence(input_ids, latents, attention_mask)
            else:
                if code_positions is None:
                    past = 0 if held is None else int(torch.as_tensor(held.get_seq_length()).max())
                    code_positions = past + torch.arange(input_ids.shape[1], device=input_ids.device)[None]
                inputs_embeds = self.embed_codes(input_ids, code_positions)
        for name in ("return_dict", "token_type_ids", "is_first_iteration"):
            kwargs.pop(name, None)
        output = self.gpt(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, **cache_inputs(self.gpt, held), **kwargs
        )
        hidden = self.final_norm(output.last_hidden_state)
        logits = self.mel_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        held = next(iter(cache_inputs(self.gpt, None)))
        return CausalLMOutputWithCrossAttentions(
            loss=loss, logits=logits, hidden_states=output.hidden_states, **{held: getattr(output, held)}
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        inputs_embeds: Tensor | None = None,
        prefix_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return inputs of a pass of ``generate``, with the positions of codes after a prompt of ``prefix_length``."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
        if inputs.get("inputs_embeds") is None and prefix_length is not None:
            new = inputs["input_ids"].shape[1]
            first = input_ids.shape[1] - new - prefix_length + FIRST_DECODED
            inputs["code_positions"] = first + torch.arange(new, device=input_ids.device)[None]
        return inputs

    @torch.inference_mode()
    def states(
        self,
        latents: Float[Tensor, "1 latents width"],
        text: Int[Tensor, "1 text"],
        codes: Int[Tensor, "1 codes"],
        *,
        window: int | None = None,
    ) -> Float[Tensor, "1 codes width"]:
        """Hidden states that predict ``codes``, for the vocoder: all of them in one pass.

        Parameters
        ----------
        window
            Of a converted model, in keys: the pass shows each code what it saw while decoding. None: everything, for a
            model that is not converted or runs under full attention.
        """
        prompt = self.prefix(latents, text)
        framed = nn.functional.pad(codes, (0, 1), value=self.config.end_code)
        after = self.embed_codes(framed, torch.arange(1, framed.shape[1] + 1, device=codes.device)[None])
        embedded = torch.cat((prompt, after), dim=1)
        cached: dict[str, Any] = {"use_cache": False}
        if window is not None:
            # A cache of its own carries the window of this call, whatever the model was converted with.
            cache = WandCache(self.gpt.config, min(window, framed.shape[1]), conditioning=prompt.shape[1])
            cached = {"use_cache": True, **cache_inputs(self.gpt, cache)}
        output = self.gpt(inputs_embeds=embedded, **cached)
        states: Tensor = self.final_norm(output.last_hidden_state)[:, prompt.shape[1] - 1 : -2]
        return states


AutoConfig.register(IndexConfig.model_type, IndexConfig, exist_ok=True)
AutoModelForCausalLM.register(IndexConfig, IndexLM, exist_ok=True)
