"""How a Speech and its Trace print: one short line, however long the speech."""

from __future__ import annotations

import pytest
from fake_system import FakeSystem

from wandlib import Step, Trace
from wandlib.systems.base import Attention


def test_a_speech_prints_as_one_short_line() -> None:
    speech = FakeSystem().synthesize("Good morning.", attention="window", window=6)
    steps = len(speech.trace.steps)
    assert repr(speech) == (
        f"<Speech: 'Good morning.', {speech.seconds:.2f} s, window 6, {steps} steps, finish {speech.trace.finish!r}>"
    )


@pytest.mark.parametrize(
    ("attention", "window", "said"), [("full", None, "full attention"), ("window", 16, "window 16")]
)
def test_a_trace_does_not_print_its_steps(attention: Attention, window: int | None, said: str) -> None:
    trace = Trace(attention, window, 40, steps=[Step(n, 2.5, 1000) for n in range(3000)], finish="limit")
    assert repr(trace) == f"<Trace: {said}, 3000 steps, finish 'limit'>"
