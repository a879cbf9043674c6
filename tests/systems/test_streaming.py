"""Streams of a system that beeps: text as it comes, sound that is not lost, clocks, and event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import queue
import threading
import time
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_system import STEPS_PER_WORD, FakeSystem
from hypothesis import given
from hypothesis import strategies as st

from wandlib.systems import InputError
from wandlib.systems.base import Trace
from wandlib.systems.speech import RECENT, Chunk

TEXT = "One two three. Four five! Six seven eight nine?"
CLAUSES = ["One two three. ", "Four five! ", "Six seven eight nine? "]


def test_an_iterable_is_spoken_clause_by_clause() -> None:
    system = FakeSystem()
    stream = system.stream((TEXT[n : n + 4] for n in range(0, len(TEXT), 4)), keep=True)
    sounds = list(stream)
    for sound, clause in zip(sounds, CLAUSES, strict=True):
        np.testing.assert_array_equal(sound, system.synthesize(clause.strip()).waveform)
    speech = stream.speech
    assert speech.text == TEXT
    assert speech.trace.parts == [STEPS_PER_WORD * len(clause.split()) for clause in CLAUSES]
    np.testing.assert_array_equal(speech.waveform, system.synthesize(CLAUSES).waveform)


def test_it_speaks_while_text_is_being_written() -> None:
    log = []

    def writer() -> Iterator[str]:
        for clause in CLAUSES:
            log.append(f"written {clause}")
            yield clause

    system = FakeSystem()
    for _ in system.stream(writer()):
        log.append("sound")
    assert log[:3] == [f"written {CLAUSES[0]}", "sound", f"written {CLAUSES[1]}"]


def test_sound_made_before_an_error_is_not_lost() -> None:
    def broken() -> Iterator[str]:
        yield "One two three. Four fi"
        raise ConnectionError("gone")

    stream = FakeSystem().stream(broken(), keep=True)
    sound = next(stream)
    with pytest.raises(ConnectionError, match="gone"):
        next(stream)
    assert stream.speech.text == "One two three."
    np.testing.assert_array_equal(stream.speech.waveform, sound)


def test_only_what_was_spoken_to_its_end_has_ended() -> None:
    def broken() -> Iterator[str]:
        yield "One two three. Four fi"
        raise ConnectionError("gone")

    whole, stopped, failed = (FakeSystem().stream(text, keep=True) for text in (CLAUSES, CLAUSES, broken()))
    for stream in (whole, stopped, failed):
        next(stream)
        assert stream.trace.finish is None
    assert len(list(whole)) == 2
    stopped.close()
    with pytest.raises(ConnectionError):
        next(failed)
    for stream in (stopped, failed):
        assert list(stream) == []
        assert "30 steps, not ended" in repr(stream.speech)
    assert [stream.trace.finish for stream in (whole, stopped, failed)] == ["end", None, None]


@pytest.mark.parametrize("text", [[], ["", " "]])
def test_an_iterable_of_nothing(text: list[str]) -> None:
    with pytest.raises(InputError, match="nothing to say"):
        FakeSystem().synthesize(text)


def test_a_stream_computes_when_asked_and_stops_when_closed() -> None:
    system = FakeSystem()
    steps: list[Any] = []
    with system.stream(CLAUSES, on_step=steps.append, keep=True) as stream:
        assert steps == []
        next(stream)
        assert len(steps) == 3 * STEPS_PER_WORD
    assert list(stream) == []
    assert len(steps) == 3 * STEPS_PER_WORD
    assert stream.speech.seconds == pytest.approx(1.2)


def test_bad_settings_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="at least 1 key"):
        FakeSystem().stream("one", window=0)


def test_the_clock_of_a_stream_stops_while_its_consumer_works() -> None:
    stream = FakeSystem(0.001).stream(CLAUSES)
    for _ in stream:
        time.sleep(0.2)
    assert [chunk.seconds for chunk in stream.trace.chunks] == [1.2, 0.8, 1.6]
    assert 0.03 < stream.trace.chunks[0].ready < 0.2
    assert stream.trace.chunks[-1].ready < 0.6


def test_what_a_listener_hears_of_a_trace() -> None:
    """The first piece starts at 0.5; it lasts to 1.5; the third comes at 4, when the second has ended at 2.5."""
    trace = Trace("full", None, 10, chunks=[Chunk(0.5, 1.0), Chunk(1.4, 1.0), Chunk(4.0, 2.0), Chunk(5.0, 1.0)])
    assert trace.first_sound_milliseconds == 500
    assert trace.stalls == [1.5]
    assert trace.underruns == 1
    assert trace.real_time_factor == 1.0
    empty = Trace("full", None, 10)
    assert (empty.first_sound_milliseconds, empty.real_time_factor, empty.underruns) == (0, 0, 0)


def test_an_endless_stream_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("speech", "streaming"):
        monkeypatch.setattr(f"wandlib.systems.{module}.RECENT", 100)
    system = FakeSystem()

    def endless() -> Iterator[str]:
        while True:
            system.requests.clear()
            yield "One two three. "

    stream = system.stream(endless())
    tracemalloc.start()
    held = [tracemalloc.get_traced_memory()[0] for _ in itertools.islice(stream, 80)]
    tracemalloc.stop()
    assert max(held[40:]) - max(held[:40]) < 4 * 1.2 * system.sample_rate  # one piece, in float32
    assert stream.seconds == pytest.approx(80 * 1.2)
    assert len(stream.trace.steps) < 300
    assert stream.trace.step_count == 80 * 3 * STEPS_PER_WORD
    with pytest.raises(InputError, match="keep=True"):
        _ = stream.speech


def test_a_trace_forgets_old_steps() -> None:
    trace = Trace("full", None, 10)
    for _ in range(RECENT + 5):
        trace.add_step(1.0, 1000)
    trace.forget()
    assert (trace.steps[0].index, trace.step_count, len(trace.steps)) == (5, RECENT + 5, RECENT)
    assert f"{RECENT + 5} steps" in trace.summary


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=30))
def test_a_trace_does_not_forget_what_a_listener_hears(pieces: list[tuple[int, int]]) -> None:
    ready = itertools.accumulate(wait for wait, _ in pieces)
    chunks = [Chunk(*piece) for piece in zip(ready, (length for _, length in pieces), strict=True)]
    trace, short = Trace("full", None, 10, chunks=chunks), Trace("full", None, 10, chunks=list(chunks))
    short.forget()
    assert (short.stalls, short.real_time_factor) == (trace.stalls, trace.real_time_factor)
    assert short.first_sound_milliseconds == trace.first_sound_milliseconds
    assert len(short.chunks) <= 2 + trace.underruns


async def listened(stream: Any) -> list[np.ndarray]:
    return [sound async for sound in stream]


def test_an_event_loop_hears_the_same() -> None:
    async def words() -> AsyncIterator[str]:
        for n in range(0, len(TEXT), 5):
            await asyncio.sleep(0)
            yield TEXT[n : n + 5]

    system = FakeSystem()
    expected = list(system.stream(CLAUSES, "high", seed=7))
    for text in (words(), CLAUSES):
        for sound, wanted in zip(asyncio.run(listened(system.astream(text, "high", seed=7))), expected, strict=True):
            np.testing.assert_array_equal(sound, wanted)


def test_two_streams_do_not_mix() -> None:
    system = FakeSystem(0.001)

    async def both() -> list[list[np.ndarray]]:
        streams = [system.astream(CLAUSES, seed=seed) for seed in (1, 2)]
        return list(await asyncio.gather(*map(listened, streams)))

    for seed, sounds in zip((1, 2), asyncio.run(both()), strict=True):
        np.testing.assert_array_equal(np.concatenate(sounds), system.synthesize(CLAUSES, seed=seed).waveform)


def stopped_after(cancel: Callable[[asyncio.Task[Any], Any], None]) -> tuple[int, int, Any]:
    """Steps when it was canceled, steps some time later, and the stream."""
    system, steps = FakeSystem(0.01), list[Any]()

    async def main() -> tuple[int, int, Any]:
        stream = system.astream(["One. ", "two " * 200], on_step=steps.append, keep=True)
        task = asyncio.create_task(listened(stream))
        while len(steps) < 20:
            await asyncio.sleep(0.005)
        cancel(task, stream)
        with pytest.raises(asyncio.CancelledError):
            await task
        then = len(steps)
        await asyncio.sleep(0.2)
        later = len(steps)
        await stream.aclose()
        return then, later, stream

    return asyncio.run(main())


def test_cancelling_stops_within_a_step_and_keeps_the_sound() -> None:
    then, later, stream = stopped_after(lambda task, _: task.cancel())
    assert later <= then + 1
    assert stream.speech.text.startswith("One.")
    assert stream.speech.seconds == pytest.approx(0.4)  # ten codes of "One."
    assert stream.trace.finish is None


def test_waiting_for_text_can_be_canceled() -> None:
    async def never() -> AsyncIterator[str]:
        yield "One two. "
        await asyncio.sleep(3600)

    assert given_up(never()) < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wandlib-stream")]


def given_up(text: Any) -> float:
    """Seconds to give up waiting for more of a text that never comes, and to close its stream."""

    async def main() -> float:
        stream = FakeSystem().astream(text)
        await anext(stream)
        clock = time.perf_counter()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.1)
        await stream.aclose()
        return time.perf_counter() - clock

    return asyncio.run(main())


def test_text_that_never_comes_keeps_nobody() -> None:
    """A queue, or a streamer whose model has died: its next() cannot be ended, and need not be waited for."""
    waiting = queue.Queue[str]()
    waiting.put("One two. ")
    assert given_up(iter(waiting.get, None)) < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wandlib-stream")]
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "wandlib-text")
    waiting.put("bye")  # let the thread go


def test_text_is_asked_for_when_its_turn_has_come() -> None:
    asked = []

    def words() -> Iterator[str]:
        for word in ("One. ", "Two. ", "Three. "):
            asked.append(word)
            yield word

    async def main() -> None:
        stream = FakeSystem().astream(words())
        await anext(stream)
        await asyncio.sleep(0.2)
        assert asked == ["One. "]
        await stream.aclose()

    asyncio.run(main())
    assert asked == ["One. "]
    assert len(asyncio.run(listened(FakeSystem().astream(words())))) > 1
    deadline = time.monotonic() + 5
    while any(thread.name == "wandlib-text" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a thread goes on waiting"
        time.sleep(0.01)


@pytest.mark.parametrize("ending", ["read to its end", "closed", "canceled", "failed"])
def test_a_text_is_entered_and_left_in_one_task(ending: str) -> None:
    """As a timeout, a task group and the responses of HTTP clients want it: their own error would come out instead."""
    left = []

    async def words() -> AsyncIterator[str]:
        entered = asyncio.current_task()
        try:
            async with asyncio.timeout(60):
                for clause in CLAUSES:
                    await asyncio.sleep(0)
                    yield clause
                if ending == "failed":
                    raise OSError("gone")
        finally:
            left.append(asyncio.current_task() is entered)

    async def main() -> int:
        stream, sounds = FakeSystem(0.001).astream(words()), 0
        if ending in {"read to its end", "failed"}:
            with pytest.raises(OSError, match="gone") if ending == "failed" else contextlib.nullcontext():
                async for _ in stream:
                    sounds += 1
        else:
            await anext(stream)
            if ending == "canceled":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.001)
            await stream.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return sounds

    sounds = asyncio.run(main())
    assert left == [True]
    assert sounds == (len(CLAUSES) if ending in {"read to its end", "failed"} else 0)


def test_a_forgotten_stream_lets_go_of_its_text() -> None:
    left = []

    async def words() -> AsyncIterator[str]:
        try:
            for clause in CLAUSES:
                yield clause
        finally:
            left.append(True)

    async def main() -> None:
        stream = FakeSystem().astream(words())
        await anext(stream)
        del stream
        for _ in range(100):
            gc.collect()
            await asyncio.sleep(0.01)
            if left:
                return

    asyncio.run(main())
    assert left == [True]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_of_any_text_comes_through(asynchronous: bool) -> None:
    """A canceled text has not come to its end."""

    async def canceled() -> AsyncIterator[str]:
        yield "One two. "
        raise asyncio.CancelledError

    def broken() -> Iterator[str]:
        yield "One two. "
        raise OSError("gone")

    stream = FakeSystem().astream(canceled() if asynchronous else broken())
    error: Any = (RuntimeError, "canceled before it came to its end") if asynchronous else (OSError, "gone")
    with pytest.raises(error[0], match=error[1]):
        asyncio.run(listened(stream))


def test_a_stream_can_be_closed_while_it_begins_to_wait_for_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has seen that it is to go on, and then the stream is closed, before there is a wait to cancel."""
    begin, waits = asyncio.run_coroutine_threadsafe, list[Any]()

    async def never() -> AsyncIterator[str]:
        await asyncio.sleep(3600)
        yield ""

    async def main() -> bool:
        stream, at_the_wait = FakeSystem().astream(never()), threading.Event()

        def late(*arguments: Any) -> Any:
            at_the_wait.set()
            stream._stop.wait()
            time.sleep(0.1)
            waits.append(begin(*arguments))
            return waits[-1]

        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", late)
        listening = asyncio.create_task(listened(stream))
        await asyncio.to_thread(at_the_wait.wait)
        closing = asyncio.create_task(stream.aclose())
        done, _ = await asyncio.wait([closing], timeout=5)
        waits[0].cancel()  # or a thread that hangs would keep the process from ending
        await asyncio.gather(closing, listening)
        return bool(done)

    assert asyncio.run(main())


def test_a_text_may_take_its_time_to_end() -> None:
    ended = []

    async def careful() -> AsyncIterator[str]:
        try:
            yield "One two. "
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            ended.append(True)

    async def main() -> None:
        stream = FakeSystem().astream(careful())
        await anext(stream)
        waiting = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        await stream.aclose()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(main())
    assert ended == [True]


def test_an_error_of_the_text_reaches_the_loop() -> None:
    async def broken() -> AsyncIterator[str]:
        yield "One two. "
        raise ConnectionError("gone")

    async def main() -> Any:
        stream = FakeSystem().astream(broken(), keep=True)
        with pytest.raises(ConnectionError, match="gone"):
            await listened(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return stream.speech

    assert asyncio.run(main()).text == "One two."


def test_a_stream_is_closed_while_it_computes() -> None:
    """By the function that hears of its steps, or by another thread: it ends after the piece under way."""
    system = FakeSystem()
    stream = system.stream(iter(CLAUSES), on_step=lambda step: stream.close())
    assert len(list(stream)) == 1
    assert stream.trace.finish is None
    assert len(system.requests) == 1


@pytest.mark.parametrize("text", [CLAUSES, (clause for clause in CLAUSES)], ids=["list", "generator"])
def test_a_stream_that_is_left_behind_is_gone(text: Any) -> None:
    """With its threads, though nobody closed it."""

    async def first() -> weakref.ref[Any]:
        stream = FakeSystem().astream(text)
        async for _ in stream:
            break
        return weakref.ref(stream)

    left = asyncio.run(first())
    deadline = time.monotonic() + 20
    while left() is not None or any("wandlib-text" in thread.name for thread in threading.enumerate()):
        gc.collect()
        assert time.monotonic() < deadline, "the stream or its thread lives on"
        time.sleep(0.01)
