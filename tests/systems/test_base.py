"""How a Speech and its Trace print: one short line, however long the speech."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fake_system
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


def test_a_reference_that_names_no_voice_is_refused_by_every_way_to_speak() -> None:
    """In a process of its own: here the types of arguments are checked before."""
    program = """
import numpy as np, wandlib
from fake_system import FakeSystem
tts = FakeSystem()
ways = (
    lambda given: tts.synthesize("Hi.", given),
    lambda given: tts.stream("Hi.", given),
    lambda given: tts.synthesize_many(["Hi."], given),
    lambda given: tts.synthesize_many(["Hi."], [given]),
)
for given in (5, b"low", np.zeros(1, np.float64), 1.5):
    for way in ways:
        try:
            way(given)
        except wandlib.InputError as error:
            print(str(error).removeprefix("text 0: ").partition(":")[0])
"""
    paths = os.pathsep.join([str(Path(fake_system.__file__).parent), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    expected = "a reference is the name of a built-in speaker or the path of an audio file, not "
    given = [line.removeprefix(expected) for line in run.stdout.splitlines()]
    # Of several, each element is looked at by itself.
    assert given == ["int"] * 4 + ["bytes"] * 4 + ["ndarray"] * 2 + ["float64", "ndarray"] + ["float"] * 4
