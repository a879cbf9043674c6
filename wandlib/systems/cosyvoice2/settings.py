"""The settings of a published folder: ``cosyvoice2.yaml``, read without running what it names.

The file builds upstream's objects by tags (``!new:cosyvoice.flow.flow.Flow``) and refers to numbers of its own
(``!ref <chunk_size> * <token_mel_ratio>``). Here a tag is only a name, a mapping stays a mapping, and a reference is a
product of numbers.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wandlib.systems.base import InputError
from wandlib.systems.cosyvoice2.encoder import UpsamplingEncoder
from wandlib.systems.cosyvoice2.estimator import Estimator
from wandlib.systems.cosyvoice2.flow import Flow, FlowMatching
from wandlib.systems.cosyvoice2.hift import HiFT
from wandlib.systems.cosyvoice2.sampling import RepetitionAware
from wandlib.systems.cosyvoice2.source import HarmonicSource, PitchPredictor

NAME = "cosyvoice2.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the file with its references resolved.

    Raises
    ------
    InputError
        If pyyaml is not installed or the file is no YAML.
    """
    if find_spec("yaml") is None:
        raise InputError(f"{path.name} needs pyyaml, which is not installed: pip install 'wandlib[cosyvoice]'")
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that reads a node with a tag as if it had none."""

    def untagged(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return f"!{suffix} {node.value}"

    Loader.add_multi_constructor("!", untagged)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is no YAML that can be read ({error}): download it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} holds no settings: download it again")
    return {name: _resolved(value, content) for name, value in content.items()}


def _resolved(value: Any, top: dict[str, Any]) -> Any:
    """Return ``value`` with ``!ref`` of numbers and products of numbers replaced; references to objects stay text."""
    if isinstance(value, dict):
        return {name: _resolved(part, top) for name, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, top) for part in value]
    if not isinstance(value, str) or not value.startswith("!ref "):
        return value
    product: Any = 1
    for name in re.split(r"\s*\*\s*", value.removeprefix("!ref ").strip()):
        number = top.get(name.strip("<>"))
        if not isinstance(number, int | float):
            return value
        product *= number
    return product


class Settings:
    """What a folder's models are built with; what the file leaves out is as published.

    Parameters
    ----------
    content
        The file, as :func:`read_yaml` returns it.

    Raises
    ------
    InputError
        If the file describes something else than CosyVoice 2, or a shape that is not built here.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        for part in ("llm", "flow", "hift"):
            if not isinstance(content.get(part), dict):
                raise InputError(f"{NAME} has no {part}: it is not that of CosyVoice 2; download it again")
        self.sample_rate = int(content.get("sample_rate", 24_000))
        self.chunk = int(content.get("chunk_size", 25))
        self.frames_per_code = int(content.get("token_mel_ratio", 2))
        self.codes_per_second = float(content.get("token_frame_rate", 25))
        if self.sample_rate != 24_000 or self.frames_per_code != 2:
            raise InputError(
                f"{NAME} asks for {self.sample_rate} Hz and {self.frames_per_code} frames a code; CosyVoice 2 has "
                "24000 Hz and 2"
            )

    @property
    def sampling(self) -> RepetitionAware:
        """Settings of the sampling."""
        given = self.content["llm"].get("sampling")
        given = given if isinstance(given, dict) else {}
        names = {"top_p": "top_p", "top_k": "top_k", "win_size": "history", "tau_r": "tolerance"}
        return RepetitionAware(**{ours: given[theirs] for theirs, ours in names.items() if theirs in given})

    def flow(self) -> Flow:
        """Build the acoustic model."""
        flow = self.content["flow"]
        encoder, solver = flow.get("encoder", {}), flow.get("decoder", {})
        network = solver.get("estimator", {})
        channels = network.get("channels", [256])
        if len(channels) != 1:
            raise InputError(f"{NAME} has an estimator of {len(channels)} levels, CosyVoice 2's has one: {channels}")
        guidance = solver.get("cfm_params", {}).get("content", {}).get("inference_cfg_rate", 0.7)
        mels, inputs = flow.get("output_size", 80), flow.get("input_size", 512)
        return Flow(
            UpsamplingEncoder(
                inputs=inputs,
                features=encoder.get("output_size", 512),
                heads=encoder.get("attention_heads", 8),
                hidden=encoder.get("linear_units", 2048),
                blocks=encoder.get("num_blocks", 6),
                ahead=flow.get("pre_lookahead_len", 3),
                chunk=self.chunk,
                factor=self.frames_per_code,
            ),
            FlowMatching(
                Estimator(
                    mels=mels,
                    channels=channels[0],
                    heads=network.get("num_heads", 8),
                    head_size=network.get("attention_head_dim", 64),
                    blocks=network.get("n_blocks", 4),
                    middle=network.get("num_mid_blocks", 12),
                    chunk=self.chunk * self.frames_per_code,
                ),
                guidance=guidance,
            ),
            codes=flow.get("vocab_size", 6561),
            inputs=inputs,
            speaker=flow.get("spk_embed_dim", 192),
            mels=mels,
        )

    def hift(self) -> HiFT:
        """Build the vocoder."""
        hift = self.content["hift"]
        pitch, transform = hift.get("f0_predictor", {}), hift.get("istft_params", {})
        mels, rates = hift.get("in_channels", 80), hift.get("upsample_rates", [8, 5, 3])
        hop = transform.get("hop_len", 4)
        samples = hop
        for rate in rates:
            samples *= rate
        if samples != 480:
            raise InputError(f"{NAME} has a vocoder of {samples} samples a frame, CosyVoice 2's makes 480: {rates}")
        return HiFT(
            PitchPredictor(mels, pitch.get("cond_channels", 512)),
            HarmonicSource(
                rate=self.sample_rate,
                hop=samples,
                harmonics=hift.get("nb_harmonics", 8),
                amplitude=hift.get("nsf_alpha", 0.1),
                noise=hift.get("nsf_sigma", 0.003),
                threshold=hift.get("nsf_voiced_threshold", 10),
            ),
            mels=mels,
            channels=hift.get("base_channels", 512),
            rates=rates,
            kernels=hift.get("upsample_kernel_sizes", [16, 11, 7]),
            n_fft=transform.get("n_fft", 16),
            hop=hop,
            block_kernels=hift.get("resblock_kernel_sizes", [3, 7, 11]),
            block_dilations=hift.get("resblock_dilation_sizes", [[1, 3, 5]] * 3),
            source_kernels=hift.get("source_resblock_kernel_sizes", [7, 7, 11]),
            source_dilations=hift.get("source_resblock_dilation_sizes", [[1, 3, 5]] * 3),
            slope=hift.get("lrelu_slope", 0.1),
            limit=hift.get("audio_limit", 0.99),
        )
