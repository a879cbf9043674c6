"""Many texts in one decode: each as if alone, each place used again, nothing lost where one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fake_system import FakeSystem
from feeding import feed
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import LANGUAGE_MODELS, VOCABULARY
from tiny_system import REFUSED, WINDOW, TinySystem

from wandlib.attention.conversion import convert
from wandlib.attention.models import cache_inputs
from wandlib.systems import InputError, Speech, load_system
from wandlib.systems.batch_cache import join, take
from wandlib.systems.decoding import attention_of, new_cache

TEXTS = ["one", "a seventeen of thunderstorms", "of", "some other words|and a second part", "x y z", "seven eight"]


def alone(system: TinySystem, texts: list[str], attention: Any, **options: Any) -> list[Speech]:
    return [system.synthesize(text, attention=attention, **options) for text in texts]


def same(one: list[Speech], other: list[Speech]) -> None:
    for first, second in zip(one, other, strict=True):
        assert first.codes.tolist() == second.codes.tolist()
        assert first.trace.parts == second.trace.parts
        assert first.trace.finish == second.trace.finish
        np.testing.assert_array_equal(first.waveform, second.waveform)


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 16])
@pytest.mark.parametrize(("attention", "window"), [("full", None), ("window", 1), ("window", None), ("window", 500)])
def test_each_is_as_if_alone(attention: Any, window: int | None, size: int, embeds: bool) -> None:
    system = TinySystem(embeds=embeds)
    many = system.synthesize_many(TEXTS, attention=attention, window=window, batch_size=size)
    assert {speech.trace.finish for speech in many} == {"limit"}
    same(many, alone(system, TEXTS, attention, window=window))


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.text("ab |", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=9),
    st.integers(2, 5),
    st.sampled_from(["full", "window"]),
)
def test_any_texts_with_ends_and_samples(texts: list[str], size: int, attention: Any) -> None:
    torch.manual_seed(0)
    system = TinySystem(25, frozenset(range(10, 22)))
    options = {"temperature": 1.0, "seed": 5}
    many = system.synthesize_many(texts, attention=attention, batch_size=size, **options)
    same(many, alone(system, texts, attention, **options))


def test_a_place_that_becomes_free_is_taken_at_once() -> None:
    """Four sentences of 10 and one of 40 codes on two places: 40 steps, not 10 and 10 and 40."""
    system = TinySystem(limit=10)
    longest = TinySystem.utterances

    def longer(self: TinySystem, texts: Any, *given: Any, **named: Any) -> Any:
        for utterance in longest(self, texts, *given, **named):
            utterance.limit = 40 if utterance.prompt.shape[1] > 4 else 10
            yield utterance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TinySystem, "utterances", longer)
        made = system.synthesize_many(["a", "a b c d", "b", "c", "d"], attention="window", batch_size=2)
    assert [len(speech.codes) for speech in made] == [10, 40, 10, 10, 10]
    assert system.calls == 5 + 40


def test_a_refused_text_is_told_and_the_others_are_spoken() -> None:
    system = TinySystem()
    texts = ["one", REFUSED, f"two|{REFUSED}", "three", "caf\udce9"]
    found = dict(system.synthesize_as_completed(texts, attention="window", batch_size=2))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert [isinstance(made, Speech) for _, made in sorted(found.items())] == [True, False, False, True, False]
    assert "half of a character" in str(found[4])
    same([found[0], found[3]], alone(system, ["one", "three"], "window"))  # type: ignore[list-item]
    with pytest.raises(InputError, match=f"text 1: cannot say '{REFUSED}'"):
        system.synthesize_many(texts)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_texts_that_end_in_an_error_lose_nothing(size: int) -> None:
    def texts() -> Iterator[str]:
        yield from TEXTS[:3]
        raise OSError("the disk is gone")

    system, found = TinySystem(), dict[int, Any]()
    with pytest.raises(OSError, match="the disk is gone"):
        found.update(system.synthesize_as_completed(texts(), attention="window", batch_size=size))
    same([found[index] for index in range(3)], alone(system, TEXTS[:3], "window"))


@pytest.mark.parametrize("size", [0, 2.5, True])
def test_a_batch_of_no_size(size: Any) -> None:
    with pytest.raises(InputError, match="batch_size is at least 1"):
        list(TinySystem().synthesize_as_completed(["one"], batch_size=size))


def test_references_are_one_for_all_or_one_for_each() -> None:
    system = FakeSystem()
    sounds = system.synthesize_many(["one", "two"], ["low", "high"])
    np.testing.assert_array_equal(sounds[1].waveform, system.synthesize("two", "high").waveform)
    assert [request["reference"] for request in system.requests] == ["low", "high", "high"]
    system.synthesize_many(["one", "two"], "high")
    assert [request["reference"] for request in system.requests[3:]] == ["high", "high"]
    with pytest.raises(InputError, match="there are 1 references and more texts"):
        system.synthesize_many(iter(["one", "two"]), ["low"])
    with pytest.raises(InputError, match="there are 1 texts and more references"):
        system.synthesize_many(iter(["one"]), ["low", "high"])
    system.requests.clear()
    with pytest.raises(InputError, match="there are 2 texts and 3 references"):
        system.synthesize_many(["one", "two"], ["low"] * 3)
    assert system.requests == []  # better said before anything is spoken
    with pytest.raises(InputError, match=r"several str, not one \('one'\)"):
        system.synthesize_many("one")


def test_each_pays_its_share() -> None:
    made = TinySystem().synthesize_many(["a b", "c d", "e f"], attention="window", batch_size=3)
    one = TinySystem().synthesize("a b", attention="window").trace
    for speech in made:
        assert [step.cache_bytes for step in speech.trace.steps] == one.cache_bytes


@pytest.mark.parametrize("window", [None, WINDOW])
@torch.inference_mode()
def test_entries_survive_the_move(window: int | None) -> None:
    """What is taken out of a joined cache, after more steps than the window holds, is what went in, and the steps."""
    system = TinySystem()
    model, generator = system.model, torch.Generator().manual_seed(0)
    entries = []
    for length in (3, 7, 5):
        cache = new_cache(model, window)
        with attention_of(model, window):
            model(torch.randint(1, 60, (1, length), generator=generator), **cache_inputs(model, cache), use_cache=True)
        entries.append(take(cache, 0, length, length))
    joined = join(model, entries, window)
    for row, one in enumerate(entries):
        again = take(joined, row, one.conditioning, one.tokens)
        assert again.conditioning == one.conditioning
        for pair, other in zip(again.layers, one.layers, strict=True):
            for part, expected in zip(pair, other, strict=True):
                assert torch.equal(part, expected)


@torch.inference_mode()
def test_a_sliding_window_of_a_layer_counts_what_has_left_the_batch() -> None:
    """Joined, stepped, taken out and joined again: how far back the prompt lies is not forgotten."""
    tiny = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "gemma3")
    model = convert(tiny.build(), WINDOW)
    ids, lengths, steps = torch.randint(1, VOCABULARY, (2, 40)), (6, 9), (14, 3)
    entries = []
    for row, (length, step) in enumerate(zip(lengths, steps, strict=True)):
        cache = new_cache(model, WINDOW)
        for part in ids[row : row + 1, : length + step].split([length, *[1] * step], 1):
            feed(model, cache, part)
        entries.append(take(cache, 0, length, length + step))
    expected = [
        model(ids[row : row + 1], conditioning=torch.arange(40)[None] < length, use_cache=False).logits[0]
        for row, length in enumerate(lengths)
    ]
    held = torch.tensor([[length + step] for length, step in zip(lengths, steps, strict=True)])
    for _ in range(2):
        joined = join(model, entries, WINDOW)
        for _ in range(6):
            got = feed(model, joined, ids.gather(1, held), position_ids=held)[:, 0]
            wanted = torch.stack([expected[row][int(held[row])] for row in range(2)])
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
            held = held + 1
        entries = [take(joined, row, length, int(held[row])) for row, length in enumerate(lengths)]


def test_layers_that_remember_differently_far_are_batched_under_a_window_only() -> None:
    system = TinySystem()
    tiny = next(tiny for tiny in LANGUAGE_MODELS if tiny.name == "gemma3")
    system.model = convert(tiny.build(), WINDOW)
    same(system.synthesize_many(TEXTS, attention="window", batch_size=3), alone(system, TEXTS, "window"))
    with pytest.raises(InputError, match="remember differently far"):
        system.synthesize_many(TEXTS, attention="full", batch_size=3)


def test_the_embedded_voice_in_a_batch() -> None:
    tts = load_system("mini")
    texts = ["Hello.", "The birch canoe slid on the smooth planks.", "No."]
    many = tts.synthesize_many(texts, ["henry", "ruth", "clara"], "window", batch_size=2)
    assert {speech.trace.finish for speech in many} == {"end"}
    for text, speaker, speech in zip(texts, ["henry", "ruth", "clara"], many, strict=True):
        assert speech.codes.tolist() == tts.synthesize(text, speaker, "window").codes.tolist()
