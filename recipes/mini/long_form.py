"""A minute, three minutes in one decode: what teacher and student make of it, ten seconds at a time.

    python -m recipes.mini.long_form

Two ways to hold a long text. *one prompt*: all of it stands in front. *streamed text*: each sentence is put behind the
last code when its turn has come, as later conditioning. Neither was trained: the longest utterance of the corpus has
about 20 seconds. The window bounds memory and time; whether the voice stays itself is what this finds out.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, get_args

import jiwer
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import DynamicCache

from recipes.mini.sentences import HARVARD
from wandlib.attention.cache.cache import WandCache
from wandlib.attention.models import cache_inputs
from wandlib.evaluation.recognizers import FasterWhisper, plain_english
from wandlib.evaluation.report import markdown_table, put_measured
from wandlib.evaluation.speakers import Resemblyzer, similarity
from wandlib.profiling.measure import held_bytes
from wandlib.systems.base import Attention
from wandlib.systems.mini.features import CODES_PER_SECOND, SAMPLE_RATE
from wandlib.systems.mini.prompt import END, FIRST_CODE, TEXT, prompt
from wandlib.systems.mini.system import MiniSystem, Voice

HERE = Path(__file__).parent
RESULTS, REPORT = HERE / "long_form.json", HERE / "LONG_FORM.md"
BLOCK_SECONDS = 10
PATIENCE = 5
"""Codes a symbol after which a sentence that finds no end is left."""


@dataclass
class Decode:
    """One long decode: codes, and for each step its time and the cache."""

    codes: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    cache_bytes: list[int] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    """Those begun."""

    @property
    def seconds(self) -> float:
        return len(self.codes) / CODES_PER_SECOND


def name_of(attention: str, streamed: bool) -> str:
    """Name a decode as the tables do."""
    return f"{'student' if attention == 'window' else 'teacher'}, {'streamed text' if streamed else 'one prompt'}"


@torch.inference_mode()
def decode(
    system: MiniSystem, attention: Attention, voice: Voice, sentences: list[str], seconds: float, streamed: bool
) -> Decode:
    """Speak greedily until ``seconds`` are full or the text is at its end, in one cache."""
    model = system.models[attention]
    cache: Any = DynamicCache(config=model.config)
    if attention == "window":
        cache = WandCache(model.config, window=system.window)
    blocks = [part for sentence in sentences for part in system.parts(sentence)]
    if not streamed:
        blocks = [[symbol for block in blocks for symbol in block]]
    made = Decode()
    most = round(seconds * CODES_PER_SECOND)
    progress = tqdm(
        total=round(seconds), unit="s", desc=f"{attention}, {'streamed text' if streamed else 'one prompt'}"
    )
    for number, symbols in enumerate(blocks):
        if len(made.codes) >= most:
            break
        made.sentences += [sentences[number]] if streamed else sentences
        head = prompt(voice.codes, symbols) if number == 0 else [TEXT, *prompt([], symbols)[2:]]
        logits = model(input_ids=torch.tensor([head]), **cache_inputs(model, cache), logits_to_keep=1).logits[0, -1]
        for _ in range(min(25 + PATIENCE * len(symbols), most - len(made.codes))):
            allowed = torch.cat((logits[END : END + 1], logits[FIRST_CODE:-1]))
            choice = int(allowed.argmax())
            if choice == 0:
                break
            made.codes.append(choice - 1)
            clock = time.perf_counter()
            token = torch.tensor([[FIRST_CODE + choice - 1]])
            logits = model(input_ids=token, **cache_inputs(model, cache)).logits[0, -1]
            made.milliseconds.append(1000 * (time.perf_counter() - clock))
            made.cache_bytes.append(held_bytes(cache))
            progress.update(int(made.seconds) - progress.n)
    progress.close()
    return made


def blocks_of(made: Decode, sound: NDArray[np.float32], reference: NDArray[np.float32]) -> list[dict[str, float]]:
    """One row for each block of ten seconds: word errors, likeness to the reference, time, cache.

    Each block is recognized by itself; all hypotheses together are aligned with the text, and every error counts where
    its place in the hypothesis lies. A word that the border cuts is lost on both sides, for every system alike.
    """
    recognize, encode = FasterWhisper(threads=1), Resemblyzer()
    step = BLOCK_SECONDS * SAMPLE_RATE
    pieces = [sound[start : start + step] for start in range(0, len(sound), step)]
    pieces = [piece for piece in pieces if len(piece) > SAMPLE_RATE]
    heard = [plain_english(recognize(piece, SAMPLE_RATE)).split() for piece in pieces]
    errors, words = count_by_block(plain_english(" ".join(made.sentences)).split(), heard)
    rows = []
    for number, piece in enumerate(pieces):
        codes = slice(round(number * BLOCK_SECONDS * CODES_PER_SECOND), None)
        times = made.milliseconds[codes][: round(BLOCK_SECONDS * CODES_PER_SECOND)]
        held = made.cache_bytes[codes][: len(times)]
        rows.append(
            {
                "second": number * BLOCK_SECONDS,
                "WER": errors[number] / max(1, words[number]),
                "similarity": similarity(encode(piece, SAMPLE_RATE), reference),
                "ms a step": float(np.median(times)),
                "cache, kB": held[-1] / 1000,
            }
        )
    return rows


def count_by_block(text: list[str], heard: list[list[str]]) -> tuple[list[int], list[int]]:
    """(word errors, words of the text) of each block, from one alignment of all that was heard with the text.

    What comes after the last word that was heard is not counted: the decode stopped at its length.
    """
    owner = [number for number, words in enumerate(heard) for _ in words]
    errors, words = [0] * len(heard), [0] * len(heard)
    if not owner:
        return [0] * len(heard), words
    out = jiwer.process_words(" ".join(text), " ".join(word for block in heard for word in block))
    for chunk in out.alignments[0]:
        spoken = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        written = chunk.ref_end_idx - chunk.ref_start_idx
        if chunk.type == "delete":
            if chunk.hyp_start_idx < len(owner):
                errors[owner[chunk.hyp_start_idx]] += written
                words[owner[chunk.hyp_start_idx]] += written
            continue
        for place in spoken:
            errors[owner[place]] += chunk.type != "equal"
            words[owner[place]] += chunk.type != "insert"
    return errors, words


def document(result: dict[str, Any]) -> str:
    """Write the measured part of LONG_FORM.md: a row for each ten seconds, a column for each decode."""
    parts = []
    for key in ("WER", "similarity", "ms a step", "cache, kB"):
        longest = max((len(decode["blocks"]) for decode in result.values()), default=0)
        rows: list[dict[str, Any]] = [
            {"from second": BLOCK_SECONDS * number}
            | {
                name: decode["blocks"][number][key] if number < len(decode["blocks"]) else ""
                for name, decode in result.items()
            }
            for number in range(longest)
        ]
        parts.append(f"{key}:\n\n{markdown_table(rows)}" if rows else "no speech")
    return "\n\n".join(parts)


def main(
    seconds: Annotated[float, typer.Option(help="Of speech in one decode.")] = 180.0,
    speaker: Annotated[str, typer.Option(help="Who speaks.")] = "henry",
    assets: Annotated[Path | None, typer.Option(help="Weights; default: the shipped ones.")] = None,
    write: Annotated[bool, typer.Option(help="Keep the numbers in long_form.json.")] = False,
) -> None:
    """Print word errors, speaker similarity, time a step and cache for each ten seconds."""
    torch.set_num_threads(1)
    system = MiniSystem.load(assets)
    voice = system.voice(speaker)
    reference = Resemblyzer()(system.decode(np.array(voice.codes), voice), SAMPLE_RATE)
    # More text than fits: a sentence takes two to three seconds.
    sentences = [sentence for sentence, _ in zip(cycle(HARVARD), range(round(seconds / 1.5)), strict=False)]
    result = {}
    for streamed in (False, True):
        for attention in get_args(Attention):
            # One prompt holds the text that the time has room for, and no more.
            text = sentences if streamed else sentences[: round(seconds / 2.6)]
            made = decode(system, attention, voice, text, seconds, streamed)
            rows = blocks_of(made, system.decode(np.array(made.codes), voice), reference)
            name = name_of(attention, streamed)
            result[name] = {"seconds": made.seconds, "blocks": rows}
    print(document(result))
    if write:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        REPORT.write_text(put_measured(REPORT.read_text(encoding="utf-8"), document(result)), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
