"""A tiny checkpoint with random weights in the layout of the published folder: for tests, notebooks and the app.

``python -m wandlib.systems.cosyvoice2.tiny FOLDER`` writes it; what it says is noise. Needs the ``onnx`` package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen2Config
from transformers.convert_slow_tokenizer import bytes_to_unicode

from wandlib.systems.cosyvoice2.configuration import CosyVoice2Config
from wandlib.systems.cosyvoice2.folder import BASE
from wandlib.systems.cosyvoice2.language_model import CosyVoice2LM
from wandlib.systems.cosyvoice2.llm_weights import DECODER, TIED, write_llm
from wandlib.systems.cosyvoice2.settings import NAME, Settings, read_yaml

CODES, TEXT_ROWS = 243, 320
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,  # large, or the window changes nothing
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
MERGES = ("t h", "Ġ t", "th e", "i n", "e r", "o u")
YAML = f"""\
__set_seed: !apply:random.seed [0]
sample_rate: 24000
spk_embed_dim: 192
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2
chunk_size: 25

llm: !new:cosyvoice.llm.llm.Qwen2LM
  llm_input_size: {SIZES["hidden_size"]}
  speech_token_size: {CODES}
  sampling: !name:cosyvoice.utils.common.ras_sampling
    top_p: 0.8
    top_k: 25
    win_size: 10
    tau_r: 0.1

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
  input_size: 32
  output_size: 80
  spk_embed_dim: !ref <spk_embed_dim>
  vocab_size: {CODES}
  input_frame_rate: !ref <token_frame_rate>
  pre_lookahead_len: 3
  encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
    input_size: 32
    output_size: 32
    attention_heads: 4
    linear_units: 64
    num_blocks: 2
    static_chunk_size: !ref <chunk_size>
  decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
    cfm_params: !new:omegaconf.DictConfig
      content:
        inference_cfg_rate: 0.7
    estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
      in_channels: 320
      out_channels: 80
      channels: [16]
      n_blocks: 1
      num_mid_blocks: 1
      num_heads: 2
      attention_head_dim: 8
      static_chunk_size: !ref <chunk_size> * <token_mel_ratio>

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
  base_channels: 32
  sampling_rate: !ref <sample_rate>
  f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
    cond_channels: 32
"""


def write_tiny(folder: str | Path, seed: int = 0) -> Path:
    """Write the checkpoint, below 2 MB. Returns the folder.

    Raises
    ------
    ImportError
        If the onnx package is missing.
    """
    root = Path(folder)
    (root / BASE).mkdir(parents=True, exist_ok=True)
    (root / NAME).write_text(YAML, encoding="utf-8")
    (root / "configuration.json").write_text('{"framework": "Pytorch", "task": "text-to-speech"}', encoding="utf-8")
    settings = Settings(read_yaml(root / NAME))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llm = write_llm(language_model())
        torch.save(llm, root / "llm.pt")
        torch.save(settings.flow().state_dict(), root / "flow.pt")
        vocoder = settings.hift()
        _audible(vocoder)
        torch.save({f"generator.{name}": tensor for name, tensor in vocoder.state_dict().items()}, root / "hift.pt")
    _write_base(root / BASE, llm)
    _write_onnx(root, np.random.default_rng(seed))
    return root


def language_model(version: int = 2) -> CosyVoice2LM:
    """Return a random language model of this size; it soon ends an utterance that is long enough."""
    model = CosyVoice2LM(CosyVoice2Config(version=version, codes=CODES, text_vocab_size=TEXT_ROWS, **SIZES)).eval()
    with torch.no_grad():
        if model.lm_head.bias is None:
            model.lm_head.weight[CODES:] = 0
        else:
            model.lm_head.bias.zero_()[model.config.end] = 12.0
            model.lm_head.bias[model.config.end + 1 :] = -100.0
    return model


def _audible(vocoder: nn.Module) -> None:
    """Give the vocoder a pitch around 150 Hz and an output far from the limit."""
    parts: Any = vocoder
    with torch.no_grad():
        parts.f0_predictor.classifier.bias.fill_(150.0)
        parts.conv_post.bias[: parts.n_fft // 2 + 1] = -2.0


def _write_base(folder: Path, llm: dict[str, Tensor]) -> None:
    """Write ``CosyVoice-BlankEN``: Qwen2's configuration, initial weights and a tokenizer of bytes."""
    config = Qwen2Config(vocab_size=TEXT_ROWS, tie_word_embeddings=True, architectures=["Qwen2ForCausalLM"], **SIZES)
    config.save_pretrained(folder)
    weights = {"model." + n.removeprefix(DECODER): t for n, t in llm.items() if n.startswith(DECODER) and n != TIED}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    alphabet = list(bytes_to_unicode().values())
    pieces = [*alphabet, *(merge.replace(" ", "") for merge in MERGES)]
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    added = {
        str(len(pieces) + n): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for n, token in enumerate(special)
    }
    tokenizer = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "eos_token": special[0],
        "pad_token": special[0],
        "model_max_length": 32768,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    files: dict[str, Any] = {
        "vocab.json": {piece: n for n, piece in enumerate(pieces)},
        "tokenizer_config.json": tokenizer,
        "generation_config.json": {"do_sample": True, "eos_token_id": len(pieces)},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *MERGES, "")), encoding="utf-8")


def _write_onnx(root: Path, random: np.random.Generator) -> None:
    """Write graphs with the published inputs and outputs: codes of pooled frames, a vector of the mean energy."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise ImportError("a tiny checkpoint needs the onnx package: pip install 'wandlib[dev]'") from error

    def write(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], weight: Any) -> None:
        constants = [numpy_helper.from_array(weight.astype(np.float32), "weight")]
        graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(root / name))

    value = helper.make_tensor_value_info
    tokenizer = random.standard_normal((CODES, 128, 1))
    for name, batch in (("speech_tokenizer_v2.onnx", 1), ("speech_tokenizer_v2.batch.onnx", "B")):
        write(
            name,
            [
                helper.make_node("AveragePool", ["feats"], ["pooled"], kernel_shape=[4], strides=[4]),
                helper.make_node("Conv", ["pooled", "weight"], ["scores"]),
                helper.make_node("ArgMax", ["scores"], ["indices"], axis=1, keepdims=0),
            ],
            [value("feats", TensorProto.FLOAT, [batch, 128, "T"]), value("feats_length", TensorProto.INT32, [batch])],
            [value("indices", TensorProto.INT64, [batch, "codes"])],
            tokenizer,
        )
    write(
        "campplus.onnx",
        [
            helper.make_node("Mul", ["input", "input"], ["energy"]),
            helper.make_node("ReduceMean", ["energy"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["output"]),
        ],
        [value("input", TensorProto.FLOAT, ["B", "T", 80])],
        [value("output", TensorProto.FLOAT, ["B", 192])],
        random.standard_normal((80, 192)) / 80,
    )


if __name__ == "__main__":
    write_tiny(sys.argv[1])
