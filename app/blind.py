"""A blind test: ten sentences by teacher and student in an order that is drawn, a vote on each, and what it proves."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import sqrt

import gradio as gr

from app import headline
from app.runs import BusyError
from app.sounds import Saved
from app.stage import Stage
from app.turns import Side
from app.view import UNREAD, Updates, View, shown
from wandlib.systems.base import Attention, InputError

SENTENCES = [
    "The last train left the station a little after midnight.",
    "She poured the tea and waited for the rain to stop.",
    "Four tall ships came slowly round the headland.",
    "If you look closely, you can see where the paint has cracked.",
    "He counted the steps to the cellar: eleven, twelve, thirteen.",
    "Nobody had told the gardener that the gate was locked.",
    "Bread, butter and a jar of honey were all they had left.",
    "Did you hear the owl in the old pear tree last night?",
    "The road over the mountain is closed until the end of March.",
    "A good map is worth more than a fast horse.",
]
COLORS = {"a": "#009E73", "b": "#CC79A7"}
VOTES = {"a": "A sounds better", "": "No difference", "b": "B sounds better"}


@dataclass(frozen=True)
class Ballot:
    """A visitor's test so far.

    Attributes
    ----------
    student
        Whether A or B of each pair is the student, drawn at the beginning.
    votes
        "student", "teacher" or "" (no difference), one for each pair.
    heard
        How many pairs were played: one more than the votes while there is something to vote on.
    """

    student: tuple[str, ...] = field(default_factory=lambda: tuple(random.choice("ab") for _ in SENTENCES))
    votes: tuple[str, ...] = ()
    heard: int = 0

    def hear(self) -> Ballot:
        """Return the ballot with the next pair played."""
        return replace(self, heard=len(self.votes) + 1)

    def vote(self, choice: str) -> Ballot:
        """Return the ballot with one vote more: "a", "b" or ""; a second vote on the same pair does not count."""
        if len(self.votes) == self.heard:
            return self
        winner = "" if not choice else "student" if choice == self.student[len(self.votes)] else "teacher"
        return replace(self, votes=(*self.votes, winner))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a binomial share: Wilson's score interval (1927), which holds for few trials too.

    With p = successes / trials and z = 1.96: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n).
    """
    if not trials:
        return 0.0, 1.0
    share, z = successes / trials, 1.959964
    middle = share + z * z / (2 * trials)
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def tally(ballot: Ballot) -> str:
    """Say what the votes show so far."""
    student, teacher = ballot.votes.count("student"), ballot.votes.count("teacher")
    decided = student + teacher
    ties = len(ballot.votes) - decided
    said = f"{len(ballot.votes)} of {len(SENTENCES)} voted: student {student}, teacher {teacher}, no difference {ties}."
    if decided:
        low, high = wilson(student, decided)
        share = f"{100 * student / decided:.0f} % for the student (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
        said += f" Of the decided, {share}"
        said += ": no preference is shown." if low <= 0.5 <= high else ": a preference."
    return said


def build(stage: Stage) -> None:
    """Build the test below the comparison."""
    names = (
        ("teacher and student", "student")
        if stage.untrained is not None
        else ("full attention and the window", "window")
    )
    gr.Markdown(
        f"Ten sentences, each by {names[0]}, as A and B in an order that is drawn anew. Listen, switch between them at "
        "the same place, and vote. You are told which one was which after each vote."
    )
    ballot_state = gr.State(Ballot())
    status = gr.HTML(View._line(""), elem_id="blind-status")
    player = gr.HTML("", elem_id="blind-player")
    with gr.Row():
        ask = gr.Button("First pair", variant="primary", elem_id="blind-next", min_width=120)
        choices = [
            gr.Button(words, interactive=False, elem_id=f"blind-vote-{key or 'none'}", min_width=120)
            for key, words in VOTES.items()
        ]

    def pair(ballot: Ballot, request: gr.Request) -> Iterator[Updates]:
        if not ballot.heard or len(ballot.votes) >= len(SENTENCES):  # the state's first value is the same for everybody
            ballot = Ballot()
        visitor, saved, made = request.session_hash or "", list[Saved](), list[Side]()
        stop = stage.begin(visitor)
        sentence, swapped = SENTENCES[len(ballot.votes)], ballot.student[len(ballot.votes)] == "a"

        def prepare() -> list[Side]:
            attentions: tuple[Attention, Attention] = ("window", "full") if swapped else ("full", "window")
            sides = [Side(key, key.upper(), stage.system, how) for key, how in zip("ab", attentions, strict=True)]
            saved.append(stage.store.new(f"{visitor} blind", stage.system.sample_rate, ["a", "b"]))
            for side in sides:
                side.prepare([sentence], None, 0, None)
                side.on_sound = partial(saved[0].append, side.key)
            return sides

        try:
            for shot in stage.desk.run(prepare, stop):
                made = shot.sides if shot.finished else []
                if stage.unread(visitor) <= UNREAD:
                    waiting = f"Waiting: {shot.before} before you." if shot.before else "Both are spoken …"
                    yield {status: View._line(waiting)}
            if not made or any(side.ended not in ("end", "limit") for side in made):
                yield {status: View._line("This pair was stopped: ask for it again.")}
                for each in saved:
                    stage.store.drop(each)
                return
            described = [
                {"key": key, "label": key.upper(), "color": COLORS[key], "url": f"wand/live/{saved[0].name}/{key}"}
                for key in "ab"
            ]
            yield {
                ballot_state: ballot.hear(),
                status: View._line(f"Pair {len(ballot.votes) + 1} of {len(SENTENCES)}: {sentence}"),
                player: headline.player(described, saved[0].rate, live=True, name="blind"),
                ask: gr.Button(interactive=False),
            } | {choice: gr.Button(interactive=True) for choice in choices}
        except (InputError, BusyError) as problem:
            yield {status: View._line(str(problem))}
            raise shown(str(problem)) from None
        except Exception as problem:
            logging.getLogger(__name__).exception("a pair failed")
            raise shown("Something went wrong in the server; see its console for the reason.") from problem
        finally:
            stage.end(visitor, stop)
            for each in saved:
                each.close("a")
                each.close("b")

    ask.click(
        pair,
        ballot_state,
        [ballot_state, status, player, ask, *choices],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=None,
        trigger_mode="once",
    )
    for key, choice in zip(VOTES, choices, strict=True):

        def vote(ballot: Ballot, key: str = key) -> Updates:
            voted = ballot.vote(key)
            if voted == ballot:  # pressed twice, before the buttons were off
                return {status: gr.skip()}
            which = ballot.student[len(ballot.votes)].upper()
            over = len(voted.votes) == len(SENTENCES)
            return {
                ballot_state: voted,
                status: View._line(f"{which} was the {names[1]}. {tally(voted)}"),
                ask: gr.Button("Begin again" if over else "Next pair", interactive=True),
            } | {each: gr.Button(interactive=False) for each in choices}

        choice.click(vote, ballot_state, [ballot_state, status, ask, *choices], api_visibility="private", queue=False)
