"""Where a run is shown: status, player, notes, curves and numbers; every tab that speaks has one of these."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app import headline, results
from app.curves import Traced, cache_curves, colors, milliseconds_curves
from app.request import Request
from app.runs import BusyError, Snapshot
from app.sounds import Saved
from app.stage import Stage
from app.turns import Side
from wandlib.systems.base import InputError

TOAST_SECONDS = 10
UNREAD = 8
"""A visitor who has not fetched so many updates gets no further ones until the result."""
Updates = dict[Any, Any]


class View:
    """The components that a run of one tab changes.

    Parameters
    ----------
    tab
        The tab's name in addresses and element ids.
    buttons
        Start, which is off while a run goes on, and stop, which is on then.
    examples
        What the curves show before the first run.
    """

    def __init__(
        self, stage: Stage, tab: str, buttons: tuple[gr.Button, gr.Button], examples: Sequence[Traced] = ()
    ) -> None:
        self.stage, self.tab, self.start, self.halt = stage, tab, *buttons
        self.status = gr.HTML(self._line(""), elem_id=f"{tab}-status")
        self.player = gr.HTML("", elem_id=f"{tab}-player")
        self.notes = gr.HTML("", elem_id=f"{tab}-notes", elem_classes="notes")
        self.curves = gr.HTML(self._curves(examples), elem_id=f"{tab}-curves")
        self.table = gr.HTML("", elem_id=f"{tab}-numbers")
        self.result = gr.JSON(visible=False, label="Result, for programs")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`run` changes."""
        shared = [self.stage.numbers, self.stage.history]
        own = [self.status, self.player, self.notes, self.curves, self.table, self.result]
        return [*own, *shared, self.start, self.halt]

    def run(
        self,
        read: Callable[[], Request],
        make_sides: Callable[[Request], list[Side]],
        visitor: str,
        *,
        texts: Callable[[Request], Iterable[str]] = lambda request: [request.text],
        memory_limit: Callable[[list[Side]], float] = lambda sides: float("inf"),
    ) -> Iterator[Updates]:
        """Check the request, wait for the turn, speak; yield what changes on the page.

        A request that cannot be used changes nothing but the status: an earlier result stays.
        """
        try:
            request = read()
        except InputError as problem:
            yield {self.status: self._line(f"Nothing was said: {problem}")}
            raise shown(str(problem)) from None
        stage = self.stage
        if stage.unread(visitor) > UNREAD:
            raise shown("The answers to earlier requests were not fetched: reload the page")
        stop, saved, begun = stage.begin(visitor), list[Saved](), False

        def prepare() -> list[Side]:
            sides = make_sides(request)
            for side in sides:
                side.prepare(
                    texts(request),
                    request.reference,
                    request.seed,
                    request.temperature,
                    request.long,
                    request.transcript,
                )
            keys = [side.key for side in sides]
            saved.append(stage.store.new(visitor, stage.system.sample_rate, keys))
            for side in sides:
                side.on_sound = partial(saved[0].append, side.key)
            return sides

        try:
            yield {self.status: self._line("Starting …")} | self._buttons(running=True)
            for shot in stage.desk.run(prepare, stop, memory_limit):
                for side in shot.sides:
                    if side.ended and saved:
                        saved[0].close(side.key)
                first = bool(shot.sides) and not begun
                if not first and not shot.finished and stage.unread(visitor) > UNREAD:
                    continue
                changes: Updates = {self.status: self._line(results.status(shot.sides, shot.before, shot.finished))}
                if shot.sides:
                    if first:
                        begun = True
                        changes |= {self.player: self._player(shot.sides, saved[0]), self.notes: "", self.table: ""}
                    changes |= {self.curves: self._curves(shot.sides)}
                    changes |= self._numbers(shot.sides)
                if shot.finished:
                    changes |= self._finish(shot, request, saved[0], visitor) | self._buttons(running=False)
                yield changes
            if stop.is_set() and not begun:
                yield {self.status: self._line("Stopped.")} | self._buttons(running=False)
        except (InputError, BusyError) as problem:
            yield {self.status: self._line(f"Nothing was said: {problem}")} | self._buttons(running=False)
            raise shown(str(problem)) from None
        except Exception as problem:
            logging.getLogger(__name__).exception("a run failed")
            yield {self.status: self._line("Nothing was said.")} | self._buttons(running=False)
            raise shown("Something went wrong in the server; see its console for the reason.") from problem
        finally:
            stage.end(visitor, stop)
            for unfinished in saved:
                if not unfinished.entry:
                    stage.store.drop(unfinished)

    def _finish(self, shot: Snapshot, request: Request, saved: Saved, visitor: str) -> Updates:
        """Store the result, and show what is known only now."""
        found = results.as_json(shot.sides, request)
        files = {side.key: f"wand/sound/{saved.name}/{side.key}.wav" for side in shot.sides}
        entry = {
            "text": request.text,
            "words": "; ".join(f"{side.label}: {results.size(side.peak_bytes)}" for side in shot.sides),
            "sides": self._described(shot.sides, saved),
            "files": {side.label: files[side.key] for side in shot.sides},
            "repeat": request.link(self.tab),
            "repeat_words": "link to repeat it"
            + (", without your recording" if isinstance(request.reference, Path) else ""),
        }
        self.stage.store.finish(saved, entry, found, results.as_csv(shot.sides))
        warned = results.warnings(
            shot.sides, request.window if self.tab != "windows" else None, self.stage.system.window
        )
        summary = {
            side.key: found["sides"][side.key]
            | {
                "wav": files[side.key],
                "cache_bytes": side.peak_bytes,
                "milliseconds": side.trace.median_milliseconds,
            }
            for side in shot.sides
        }
        return {
            self.table: results.table(shot.sides, request),
            self.notes: notes(warned, saved, entry),
            self.result: {"run": saved.name, "warnings": warned, "sides": summary},
            self.stage.history: history(self.stage.store.of(visitor)),
        }

    def _described(self, sides: list[Side], saved: Saved) -> list[dict[str, str]]:
        shades = colors(sides)
        return [
            {
                "key": side.key,
                "label": side.label,
                "color": shades[side.key],
                "url": f"wand/live/{saved.name}/{side.key}",
            }
            for side in sides
        ]

    def _player(self, sides: list[Side], saved: Saved) -> str:
        return headline.player(self._described(sides, saved), saved.rate, live=True, name=saved.name, autoplay=True)

    def _curves(self, sides: Sequence[Traced]) -> str:
        return f"<div class='curves-pair'>{cache_curves(sides)}{milliseconds_curves(sides)}</div>"

    def _numbers(self, sides: list[Side]) -> Updates:
        pair, found = results.compared(sides), results.figures(sides)
        if pair is None or found is None:
            return {}
        cache = found["cache_bytes"]
        return {
            self.stage.numbers: headline.numbers(
                (results.size(cache[0]), results.size(cache[1]), results.percent(*cache)),
                results.step_words(found),
                self.stage.system.codes_per_second,
                f"{pair[0].label} → {pair[1].label}, of your text, now: after "
                f"{max(side.sound_seconds for side in pair):.0f} s of speech.",
            )
        }

    def _buttons(self, *, running: bool) -> Updates:
        """Switch the buttons; part of the run's own updates, since an event of its own could come late."""
        return {self.start: gr.Button(interactive=not running), self.halt: gr.Button(interactive=running)}

    @staticmethod
    def _line(words: str) -> str:
        """Return the status, which a screen reader says whenever it changes."""
        return f"<div class='status' role='status' aria-live='polite'>{html.escape(words)}</div>"


def notes(warned: list[str], saved: Saved, entry: dict[str, Any]) -> str:
    """Draw warnings, and the links to the result's files."""
    lines = "".join(f"<p class='warning'>{html.escape(words)}</p>" for words in warned)
    return f"{lines}<p class='files'>{links(saved, entry)}</p>"


def links(saved: Saved, entry: dict[str, Any]) -> str:
    """Draw the links of a result."""
    wavs = " ".join(f"<a href='{url}' download>{html.escape(label)}.wav</a>" for label, url in entry["files"].items())
    return (
        f"{wavs} · <a href='wand/trace/{saved.name}.csv' download>steps.csv</a> "
        f"<a href='wand/trace/{saved.name}.json' download>steps.json</a> · "
        f"<a href='{html.escape(entry['repeat'], quote=True)}'>{entry['repeat_words']}</a>"
    )


def history(runs: list[Saved]) -> str:
    """Draw the list of a visitor's results, the newest first."""
    if not runs:
        return "<div class='history'><p class='memory'>None yet. The last 8 stay here, for an hour.</p></div>"
    items = "".join(
        f"<li><q>{html.escape(run.entry['text'][:90])}{'…' if len(run.entry['text']) > 90 else ''}</q> "
        f"{html.escape(run.entry['words'])}<br><button type='button' class='wand-again' data-rate='{run.rate}' "
        f"data-sides='{html.escape(json.dumps(run.entry['sides']), quote=True)}'>▶ hear again</button> "
        f"{links(run, run.entry)}<div class='wand-place'></div></li>"
        for run in runs
    )
    return f"<div class='history'><ol>{items}</ol></div>"


def shown(message: str) -> gr.Error:
    """Make an error for the page; the message is plain text, not HTML."""
    return gr.Error(html.escape(message, quote=False), duration=TOAST_SECONDS, print_exception=False)
