"""Sides that take turns, the queue before them, and what is drawn and said of them."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from fake_system import BYTES_PER_TOKEN, CONDITIONING, CRASH, STEPS_PER_WORD, FakeSystem

from app import headline, results
from app.blind import SENTENCES, Ballot, tally, wilson
from app.curves import POINTS, bytes_in_use, cache_curves, milliseconds_curves
from app.examples import ExampleSide, example_sides
from app.request import Request, from_link, pieces
from app.runs import WAITING_LIMIT, BusyError, Desk
from app.turns import Side, take_turns
from wandlib.systems.base import InputError, Step, Trace
from wandlib.systems.streaming import AtOnce


def sides(system: FakeSystem, text: str = "one two") -> list[Side]:
    made = [Side("full", "Full", system, "full"), Side("window", "Window", system, "window", 8)]
    for side in made:
        side.prepare([text], "low", 0, None)
    return made


class TestTurns:
    def test_one_step_each(self, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        original = FakeSystem.codes

        def codes(self: FakeSystem, utterance: Any, trace: Trace, on_step: Any) -> Any:
            for code in original(self, utterance, trace, on_step):
                order.append(trace.attention)
                yield code

        monkeypatch.setattr(FakeSystem, "codes", codes)
        take_turns(sides(FakeSystem(), "one"), threading.Event())
        assert order[:8] == ["full", "window", "window", "full"] * 2
        assert order.count("full") == order.count("window") == STEPS_PER_WORD

    def test_equals_synthesize(self) -> None:
        """Decoding in turn changes nothing: sound and trace are those of each side alone."""
        made, found = sides(FakeSystem()), dict[str, list[Any]](full=[], window=[])
        for side in made:
            side.on_sound = found[side.key].append
        take_turns(made, threading.Event())
        for side in made:
            alone = FakeSystem().synthesize("one two", "low", side.attention, window=8)
            np.testing.assert_array_equal(np.concatenate(found[side.key]), alone.waveform)
            assert side.trace.steps == alone.trace.steps
            assert side.ended == "end"

    def test_a_side_that_fails_leaves_the_others_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        made = [Side("full", "Full", FakeSystem(), "full"), Side("window", "Window", FakeSystem(), "window", 8)]
        made[0].prepare(["fine", CRASH], "low", 0, None)
        made[1].prepare(["fine", "fine"], "low", 0, None)
        take_turns(made, threading.Event())
        assert [side.ended for side in made] == ["failed", "end"]
        assert made[0].samples == made[1].samples // 2
        assert "RuntimeError" in results.warnings(made, 8, 8)[0]

    def test_stop_keeps_what_was_made(self) -> None:
        made, stop = sides(FakeSystem(), "word " * 50), threading.Event()
        count = 0

        def limit(sides: list[Side]) -> float:
            nonlocal count
            count += 1
            if count == 20:
                stop.set()
            return float("inf")

        take_turns(made, stop, limit)
        assert {side.ended for side in made} == {"stopped"}
        assert all(0 < side.samples < 50 * STEPS_PER_WORD * 640 for side in made)

    def test_first_sound_comes_after_the_turn_that_made_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def finish(self: AtOnce) -> Any:
            time.sleep(0.2)
            return np.ones(640, np.float32)

        monkeypatch.setattr(AtOnce, "finish", finish)
        made = sides(FakeSystem())
        take_turns(made, threading.Event())
        for side in made:
            assert 200 < side.trace.first_sound_milliseconds <= 1000 * side.seconds

    def test_sound_of_a_side_that_is_cut_short_is_in_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def finish(self: AtOnce) -> Any:
            time.sleep(0.2)
            return np.ones(640, np.float32)

        monkeypatch.setattr(AtOnce, "finish", finish)
        made = sides(FakeSystem())
        take_turns(made, threading.Event(), lambda sides: 0)
        for side in made:
            assert side.ended == "memory"
            assert side.samples == 640
            assert 0.2 < side.trace.chunks[0].ready <= side.seconds


class TestDesk:
    def test_one_at_a_time_in_order(self) -> None:
        desk, order, all_are_here = Desk(), list[int](), threading.Event()

        def ask(number: int) -> None:
            def prepare() -> list[Side]:
                order.append(number)
                all_are_here.wait()
                return sides(FakeSystem(), "word")

            shots = list(desk.run(prepare, threading.Event()))
            assert shots[-1].finished

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for number, thread in enumerate(threads):
            thread.start()
            while len(desk._queue) <= number:
                time.sleep(0.005)
        all_are_here.set()
        for thread in threads:
            thread.join()
        assert order == [0, 1, 2, 3]
        desk.close()

    def test_full_queue(self) -> None:
        desk, stops = Desk(), [threading.Event() for _ in range(WAITING_LIMIT + 1)]
        runs = [desk.run(lambda: sides(FakeSystem(0.01), "word " * 50), stop) for stop in stops]
        for run in runs:
            next(run)
        with pytest.raises(BusyError, match="16 requests are waiting"):
            next(desk.run(list, threading.Event()))
        assert [next(run).before for run in runs[1:4]] == [1, 2, 3]
        for run in runs[::-1]:
            run.close()
        assert list(desk.run(lambda: sides(FakeSystem()), threading.Event()))[-1].finished
        desk.close()

    def test_closing_the_iterator_ends_the_decode(self) -> None:
        desk, made = Desk(), list[Side]()

        def prepare() -> list[Side]:
            made.extend(sides(FakeSystem(0.005), "word " * 100))
            return made

        shots = desk.run(prepare, threading.Event())
        while not next(shots).sides:
            pass
        shots.close()
        assert {side.ended for side in made} == {"stopped"}
        desk.close()

    def test_what_a_failure_held_is_let_go_at_once(self) -> None:
        """A reference that was refused once stayed in memory: exception, traceback and frame held one another."""
        desk, held = Desk(), list[Any]()

        class Large:
            pass

        def prepare() -> list[Side]:
            large = Large()
            held.append(weakref.ref(large))
            raise InputError(f"no good: {type(large).__name__}")

        gc.disable()
        try:
            with pytest.raises(InputError, match="no good"):
                list(desk.run(prepare, threading.Event()))
            list(desk.run(lambda: sides(FakeSystem()), threading.Event()))  # the thread lets go of its last job
            assert held[0]() is None
        finally:
            gc.enable()
            desk.close()


class TestCurves:
    def traced(self, count: int, cache: Any = lambda index: 1000, milliseconds: Any = lambda index: 2.0) -> ExampleSide:
        steps = [Step(index, milliseconds(index), cache(index)) for index in range(count)]
        return ExampleSide("full", "full", "full", Trace("full", None, 10, steps=steps, parts=[count]))

    def test_points_are_to_scale(self) -> None:
        points = drawn(cache_curves([self.traced(100, lambda index: 1000 * (index + 1))]))
        assert len(points) == 100
        slopes = {round((y - b) / (x - a), 2) for (a, b), (x, y) in zip(points[::30], points[30::30], strict=False)}
        assert len(slopes) == 1

    def test_long_curves_are_thinned(self) -> None:
        side = self.traced(50_000)
        assert len(drawn(milliseconds_curves([side]))) == POINTS
        assert len(drawn(cache_curves([side]))) == POINTS

    def test_one_slow_step_does_not_flatten_the_rest(self) -> None:
        side = self.traced(200, milliseconds=lambda index: 900.0 if index == 0 else 2.0)
        (height,) = {y for _, y in drawn(milliseconds_curves([side]))[20:]}
        assert height < 150, "2 ms lies at the very bottom of the picture"

    def test_nothing_yet(self) -> None:
        for some in ([], [self.traced(0)], [self.traced(1, lambda index: 0)]):
            assert cache_curves(some).startswith("<figure>")
            assert milliseconds_curves(some).startswith("<figure>")

    def test_new_parts_are_marked(self) -> None:
        svg = cache_curves([self.traced(100, lambda index: 1000 * (index % 40 + 1))])
        assert svg.count('class="part"') == 2

    def test_ring_counts_as_far_as_it_is_used(self) -> None:
        """A ring is as large at first as at its end: until it is full, the window uses what full attention does."""
        conditioning, window, token = 20, 8, 64
        parts = [30, 12]
        held = [token * (conditioning + window)] * sum(parts)
        steps = [Step(index, 1.0, each) for index, each in enumerate(held)]
        trace = Trace("window", window, conditioning, steps=steps, parts=parts)
        used = bytes_in_use(ExampleSide("window", "window", "window", trace))
        naive = [token * (conditioning + min(index + 1, window)) for part in parts for index in range(part)]
        np.testing.assert_array_equal(used, naive)
        used = bytes_in_use(ExampleSide("window", "window", "window", trace, one_cache=True))
        assert (used[:30] == naive[:30]).all(), "the ring is filled once"
        assert (used[30:] == held[0]).all()

    def test_ring_of_a_part_that_cannot_fill_the_window(self) -> None:
        """The decoder gives a part no more slots than it has steps at most."""
        conditioning, token, parts, rings = 20, 64, [30, 5], (32, 6)
        held = [token * (conditioning + ring) for part, ring in zip(parts, rings, strict=True) for _ in range(part)]
        steps = [Step(index, 1.0, each) for index, each in enumerate(held)]
        trace = Trace("window", 256, conditioning, steps=steps, parts=parts)
        used = bytes_in_use(ExampleSide("window", "window", "window", trace, rings=rings))
        naive = [token * (conditioning + index + 1) for part in parts for index in range(part)]
        np.testing.assert_array_equal(used, naive)

    def test_cache_that_grows_is_drawn_as_it_is(self) -> None:
        made = sides(FakeSystem())
        take_turns(made, threading.Event())
        for side in made:
            np.testing.assert_array_equal(bytes_in_use(side), side.trace.cache_bytes)


def drawn(svg: str) -> list[tuple[float, float]]:
    points = [point for line in svg.split('<polyline points="')[1:] for point in line.split('"')[0].split()]
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points)]


class TestWords:
    def finished(self, text: str = "one two", window: int = 8) -> list[Side]:
        made = sides(FakeSystem(), text)
        take_turns(made, threading.Event())
        return made

    @pytest.mark.parametrize(
        ("before", "after", "words"),
        [
            (200, 96, "−52 %"),
            (100, 104, "+4 %"),
            (100, 100, "±0 %"),
            (0, 5, ""),
            (1000, 2, "−99.8 %"),
            (5, 0, "−100 %"),
        ],
    )
    def test_percent(self, before: float, after: float, words: str) -> None:
        assert results.percent(before, after) == words

    def test_difference_within_the_spread_is_called_that(self) -> None:
        found = {"milliseconds": [2.0, 2.1], "spread": [(1.8, 2.3), (1.9, 2.4)]}
        assert results.step_words(found) == ("2.00 ms", "2.10 ms", "+5 %, within the spread of the steps")
        found = {"milliseconds": [4.0, 2.0], "spread": [(3.8, 4.3), (1.9, 2.4)]}
        assert results.step_words(found) == ("4.00 ms", "2.00 ms", "−50 %")

    def test_length_limit_is_a_warning(self) -> None:
        made = self.finished()
        made[1].ended = "limit"
        assert "never found the end" in results.warnings(made, 8, 8)[0]

    def test_parts_are_a_warning(self) -> None:
        """Whether they share a cache or not, the curves show where one begins."""
        made = self.finished()
        for side in made:
            side.trace.parts[:] = [20, 15]
        (said,) = results.warnings(made, 8, 8)
        assert "in parts, 2 here" in said
        for side in made:
            side.one_cache = True
        (said,) = results.warnings(made, 8, 8)
        assert "in 2 parts in one cache" in said

    @pytest.mark.parametrize(("window", "words"), [(2, "far below 8"), (8, None), (32, "far above 8")])
    def test_window_far_from_the_trained_one(self, window: int, words: str | None) -> None:
        found = results.warnings(self.finished(), window, 8)
        assert words in found[0] if words else found == []

    def test_conclusion_uses_the_peak(self) -> None:
        made = self.finished("word " * 4)
        assert results.conclusion(made).endswith("53 % less.")
        assert made[0].peak_bytes == (CONDITIONING + 4 * STEPS_PER_WORD) * BYTES_PER_TOKEN

    def test_stored_result(self) -> None:
        """The page's first numbers are those of its curves."""
        from app.headline import precomputed

        found = precomputed()
        stored = {side.key: side for side in example_sides()}
        assert list(stored) == ["full", "window", "untrained"]
        for side, words in zip(("full", "window"), found["shown"]["cache"], strict=False):
            assert results.size(bytes_in_use(stored[side])[-1]) == words
        assert bytes_in_use(stored["window"]).max() < bytes_in_use(stored["full"]).max()
        assert (np.diff(bytes_in_use(stored["full"])) > 0).all(), "one cache: nothing begins anew"
        assert (np.diff(bytes_in_use(stored["window"])) >= 0).all()

    def test_stored_times_are_those_of_a_quiet_machine(self) -> None:
        """A step's time hardly grows with the few hundred before it: where it doubles, other work came in between."""
        for side in example_sides():
            first, *later = [
                np.median(side.trace.milliseconds[start : start + 100])
                for start in range(0, len(side.trace.steps), 100)
            ]
            assert max(later) < 2 * first, side.key

    def test_stopped_before_a_sound_is_called_stopped(self) -> None:
        made, stop = sides(FakeSystem()), threading.Event()
        stop.set()
        take_turns(made, stop)
        made[0].samples = made[1].samples = 0
        assert results.status(made, 0, finished=True) == "Stopped."
        made[0].samples = 640
        assert results.status(made, 0, finished=True) == "Stopped. What was made so far stays."

    @pytest.mark.parametrize(("codes_per_second", "words"), [(25.0, "about 1/25 second"), (50.0, "about 1/50 second")])
    def test_length_of_a_code_is_the_systems(self, codes_per_second: float, words: str) -> None:
        assert words in headline.numbers(("1", "2", "3"), ("1", "2", "3"), codes_per_second, "")


class TestBlind:
    def test_wilson(self) -> None:
        """Values of statsmodels' proportion_confint(method="wilson")."""
        assert wilson(7, 10) == pytest.approx((0.3968, 0.8922), abs=1e-4)
        assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
        assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
        assert wilson(0, 0) == (0.0, 1.0)

    def test_votes_are_counted_for_who_spoke(self) -> None:
        ballot = Ballot(student=("a", "b") * 5)
        for choice in "aaaaaaaaa":
            ballot = ballot.hear().vote(choice)
        ballot = ballot.hear().vote("")
        assert ballot.votes.count("student") == 5
        assert ballot.votes.count("teacher") == 4
        assert tally(ballot).startswith("10 of 10 voted: student 5, teacher 4, no difference 1.")
        assert "no preference is shown" in tally(ballot)
        clear = Ballot(student=("a",) * 10, votes=("student",) * 10)
        assert tally(clear).endswith("a preference.")
        assert "0 of 10" in tally(Ballot())

    def test_second_vote_on_a_pair_does_not_count(self) -> None:
        ballot = Ballot()
        assert ballot.vote("a") == ballot, "nothing was played yet"
        for number in range(len(SENTENCES)):
            ballot = ballot.hear().vote("a")
            assert ballot.vote("b") == ballot
            assert len(ballot.votes) == number + 1

    def test_order_is_drawn(self) -> None:
        assert len({Ballot().student for _ in range(20)}) > 10
        assert len(SENTENCES) == 10


CHOICES = {
    "speaker": ["low", "high"],
    "temperature": ["default", 0.0, 0.5],
    "untrained": [True, False],
    "memory": [0.0, 1.5],
}


class TestRequest:
    def test_link_comes_back(self) -> None:
        asked = Request("say & repeat?\nyes", "high", 5, 7, 0.5, further={"untrained": False, "memory": 1.5})
        from urllib.parse import parse_qsl

        query = dict(parse_qsl(asked.link("compare").removeprefix("?")))
        found = from_link(query, 1000, CHOICES)
        assert found == {"text": asked.text, **asked.settings()}
        assert found["untrained"] is False

    @pytest.mark.parametrize(
        "query",
        [
            {"text": "a" * 1001},
            {"speaker": "/etc/passwd"},
            {"window": "0"},
            {"window": "1e3"},
            {"window": "9" * 5000},
            {"window": "0" * 5000 + "8"},
            {"window": "000000000016999"},
            {"seed": "-1"},
            {"temperature": "77"},
            {"untrained": "yes"},
            {"memory": "1e9"},
            {"other": "x"},
            {"window": "²"},
        ],
    )
    def test_link_out_of_the_limits_is_ignored(self, query: dict[str, str]) -> None:
        assert from_link(query, 1000, CHOICES) == {}

    def test_pieces_are_whole_sentences_and_nothing_is_lost(self) -> None:
        text = "One sentence here. " * 80 + "\n\n" + 'He said: "Go!" She went.   ' + "\n\n \n\n" + "no end"
        found = pieces(text, 200)
        assert " ".join(found).split() == text.split()
        assert all(len(piece) <= 200 for piece in found)
        assert all(piece.endswith((".", "end")) for piece in found)
        assert pieces(" \n\n ... ") == []
        assert pieces("x" * 900) == ["x" * 900]
        assert pieces("With Dr. Jones. Then " + "x" * 20, 10) == ["With Dr. Jones.", "Then " + "x" * 20]
