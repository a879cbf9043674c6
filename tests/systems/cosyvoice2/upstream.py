"""The original's classes, out of the checkouts that WANDLIB_UPSTREAM names; nothing of them is in this repository.

The folder holds ``cosyvoice`` (or ``CosyVoice``), ``matcha`` (or ``Matcha-TTS``) and, if they are not installed,
``site`` with diffusers, conformer, einops and omegaconf.
"""

from __future__ import annotations

import logging
import os
import sys
import types
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wandlib.systems.cosyvoice2.llm_weights import write_llm

from . import cases

FOLDER = os.environ.get("WANDLIB_UPSTREAM")


def prepare() -> None:
    """Put the checkouts on the path, and stand-ins for what is imported there and not used here."""
    if "matcha.utils" in sys.modules:
        return
    root = Path(FOLDER or "")
    for names in (("cosyvoice", "CosyVoice"), ("matcha", "Matcha-TTS")):
        found = [root / name for name in names if (root / name).is_dir()]
        if not found:
            raise FileNotFoundError(f"WANDLIB_UPSTREAM={FOLDER} holds no {names[1]}")
        sys.path.insert(0, str(found[0]))
    sys.path.append(str(root / "site"))
    package, logger = types.ModuleType("matcha.utils"), types.ModuleType("matcha.utils.pylogger")
    package.__path__ = []
    logger.get_pylogger = logging.getLogger  # type: ignore[attr-defined]
    whisper, tokenizer = types.ModuleType("whisper"), types.ModuleType("whisper.tokenizer")
    tokenizer.Tokenizer = object  # type: ignore[attr-defined]
    sys.modules |= {"matcha.utils": package, "matcha.utils.pylogger": logger}
    sys.modules |= {"whisper": whisper, "whisper.tokenizer": tokenizer, "tiktoken": types.ModuleType("tiktoken")}


@contextmanager
def quiet() -> Any:
    """The original warns of its own age."""
    prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encoder() -> nn.Module:
    from cosyvoice.transformer.upsample_encoder import UpsampleConformerEncoder

    return UpsampleConformerEncoder(
        input_size=512,
        output_size=512,
        attention_heads=8,
        linear_units=cases.HIDDEN,
        num_blocks=cases.BLOCKS,
        input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn",
        use_cnn_module=False,
        macaron_style=False,
        static_chunk_size=25,
    )


def estimator() -> nn.Module:
    from cosyvoice.flow.decoder import CausalConditionalDecoder

    return CausalConditionalDecoder(
        in_channels=320,
        out_channels=80,
        channels=[cases.CHANNELS],
        dropout=0.0,
        attention_head_dim=cases.HEAD_SIZE,
        n_blocks=cases.ATTENTION,
        num_mid_blocks=cases.MIDDLE,
        num_heads=cases.HEADS,
        act_fn="gelu",
        static_chunk_size=50,
        num_decoding_left_chunks=-1,
    )


def flow() -> nn.Module:
    from cosyvoice.flow.flow import CausalMaskedDiffWithXvec
    from cosyvoice.flow.flow_matching import CausalConditionalCFM
    from omegaconf import DictConfig

    parameters = {
        "sigma_min": 1e-6,
        "solver": "euler",
        "t_scheduler": "cosine",
        "training_cfg_rate": 0.2,
        "inference_cfg_rate": 0.7,
        "reg_loss_type": "l1",
    }
    with torch.random.fork_rng(devices=[]):  # it seeds the global generator
        solver = CausalConditionalCFM(240, DictConfig(parameters), n_spks=1, spk_emb_dim=80, estimator=estimator())
        return CausalMaskedDiffWithXvec(vocab_size=cases.CODES, input_frame_rate=25, encoder=encoder(), decoder=solver)


def pitch() -> nn.Module:
    from cosyvoice.hifigan.f0_predictor import ConvRNNF0Predictor

    return ConvRNNF0Predictor(1, 80, cases.VOCODER)


def source() -> nn.Module:
    from cosyvoice.hifigan.generator import SourceModuleHnNSF

    return SourceModuleHnNSF(24000, 480, 8, 0.1, 0.003, 10, sinegen_type="2")


def vocoder() -> nn.Module:
    from cosyvoice.hifigan.generator import HiFTGenerator

    return HiFTGenerator(
        in_channels=80,
        base_channels=cases.VOCODER,
        sampling_rate=24000,
        upsample_rates=[8, 5, 3],
        upsample_kernel_sizes=[16, 11, 7],
        source_resblock_kernel_sizes=[7, 7, 11],
        source_resblock_dilation_sizes=[[1, 3, 5]] * 3,
        f0_predictor=pitch(),
    )


def attention() -> nn.Module:
    from cosyvoice.transformer.attention import RelPositionMultiHeadedAttention

    return RelPositionMultiHeadedAttention(4, 64, 0.0)


@contextmanager
def drawing(noise: Tensor) -> Any:
    """Let the source draw ``noise`` [1, waves, samples] where it draws noise as large as its waves."""
    real = torch.randn_like

    def drawn(like: Tensor, **options: Any) -> Tensor:
        wanted = noise.transpose(1, 2)
        return wanted.clone() if like.shape == wanted.shape else real(like, **options)

    torch.randn_like = drawn  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randn_like = real


def run_attention(module: Any, x: Tensor, distances: Tensor) -> Tensor:
    return module(x, x, x, torch.ones(2, 1, 30, dtype=torch.bool), distances[None])[0]


def run_encoder(module: Any, x: Tensor, future: Tensor | None, streaming: bool) -> Tensor:
    context = torch.zeros(0, 0, 0) if future is None else future
    return module(x, torch.tensor([x.shape[1]]), context=context, streaming=streaming)[0]


def run_estimator(
    module: Any, x: Tensor, features: Tensor, times: Tensor, speaker: Tensor, prompt: Tensor, streaming: bool
) -> Tensor:
    return module(x, torch.ones(2, 1, x.shape[2]), features, times, speaker, prompt, streaming=streaming)


def run_flow(
    module: Any,
    codes: Tensor,
    reference_codes: Tensor,
    reference_mel: Tensor,
    speaker: Tensor,
    streaming: bool,
    last: bool,
) -> Tensor:
    def length(tensor: Tensor) -> Tensor:
        return torch.tensor([tensor.shape[1]])

    return module.inference(
        codes.int(),
        length(codes),
        reference_codes.int(),
        length(reference_codes),
        reference_mel,
        length(reference_mel),
        speaker,
        streaming,
        last,
    )[0]


def run_source(module: Any, pitch: Tensor, noise: Tensor) -> Tensor:
    samples = pitch.repeat_interleave(480, dim=1)[..., None]
    with drawing(noise):
        return module(samples)[0].transpose(1, 2)


def run_vocoder(module: Any, mel: Tensor, noise: Tensor, past: Tensor | None) -> Tensor:
    with drawing(noise):
        return module.inference(mel, torch.zeros(1, 1, 0) if past is None else past)[0]


ORIGINALS: dict[str, tuple[Any, Any]] = {
    "relative attention": (attention, run_attention),
    "encoder": (encoder, run_encoder),
    "estimator": (estimator, run_estimator),
    "flow": (flow, run_flow),
    "pitch": (pitch, lambda module, mel: module(mel)),
    "source": (source, run_source),
    "hift": (vocoder, run_vocoder),
}


def original(case: cases.Case) -> nn.Module:
    """The original's module of a case, with the case's weights."""
    with quiet():
        build, _ = ORIGINALS[case.name.split(",")[0]]
        filled = cases.fill(build())
    return cases.audible(filled) if "hift" in case.name else filled


def output(case: cases.Case) -> Tensor:
    """What the original's module makes of a case."""
    module = original(case)
    with quiet(), torch.no_grad():
        return ORIGINALS[case.name.split(",")[0]][1](module, **case.inputs)


def language_model(folder: Path, version: int) -> Any:
    """The original's language model; ``folder`` is a CosyVoice-BlankEN that has the size of ours."""
    with quiet():
        from cosyvoice.llm.llm import CosyVoice3LM, Qwen2Encoder, Qwen2LM
        from cosyvoice.utils.common import ras_sampling

        build = Qwen2LM if version == 2 else CosyVoice3LM
        return build(32, 32, cases.CODES, Qwen2Encoder(str(folder)), ras_sampling).eval()


def prefix(model: Any, text: list[int], speech: list[int]) -> Tensor:
    """Embeddings of sos, text, task and speech, by the original's tables."""
    special = model.llm_embedding if hasattr(model, "llm_embedding") else model.speech_embedding
    parts = [
        special.weight[model.sos][None],
        model.llm.model.model.embed_tokens(torch.tensor(text)),
        special.weight[model.task_id][None],
        model.speech_embedding(torch.tensor(speech, dtype=torch.long)),
    ]
    return torch.cat(parts)[None]


def language_model_logits(folder: Path, version: int) -> Tensor:
    """What it makes of the prompt of the cases, with the weights of ours."""
    model = language_model(folder, version)
    model.load_state_dict(write_llm(cases.filled_language_model(version)), strict=True)
    with quiet(), torch.no_grad():
        hidden = model.llm.model.model(inputs_embeds=prefix(model, *cases.PROMPT)).last_hidden_state
        return model.llm_decoder(hidden)


def streamed() -> Tensor:
    """What its own loop makes of the codes of the cases, piece by piece."""
    given = cases.stream_inputs()
    real = torch.randn_like

    def drawn(like: Tensor, **options: Any) -> Tensor:
        waves = like.ndim == 3 and like.shape[2] == cases.WAVES
        return cases.noise_of(like.shape[1]).transpose(1, 2) if waves else real(like, **options)

    with quiet():
        from cosyvoice.cli.model import CosyVoice2Model

        model = CosyVoice2Model(nn.Identity(), cases.fill(flow()), cases.audible(cases.fill(vocoder())))
        torch.randn_like = drawn  # type: ignore[assignment]
        try:
            pieces = model.tts(
                source_speech_token=given["codes"].int(),
                flow_prompt_speech_token=given["old"].int(),
                prompt_speech_feat=given["mel"],
                flow_embedding=given["speaker"],
                stream=True,
            )
            return torch.cat([piece["tts_speech"][0] for piece in pieces])
        finally:
            torch.randn_like = real
