"""The app as a visitor meets it, in a real browser: sound while it is made, curves that grow, errors, a phone."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, Visitor, asked_elsewhere, chromium, complaints, installed
from fake_system import FakeSystem
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from served_app import Served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not installed(), reason="needs Debian's chromium, chromium-driver"),
]

TABS = ["Compare", "Endless", "Window", "Your model"]


class Talker(FakeSystem):
    """Takes 10 ms a step, and its sound comes piece by piece; no side goes on after ``hold`` steps."""

    hold = math.inf

    def codes(self, utterance, trace, on_step):  # type: ignore[no-untyped-def]
        for code in super().codes(utterance, trace, on_step):
            yield code
            while len(trace.steps) >= Talker.hold:
                time.sleep(0.01)

    def utterances(self, texts, reference, settings, *, streaming):  # type: ignore[no-untyped-def]
        import numpy as np

        class Pieces:
            def push(self, code: int) -> np.ndarray:
                return np.full(640, 0.01, np.float32)

            def finish(self) -> np.ndarray:
                return np.zeros(0, np.float32)

        for utterance in super().utterances(texts, reference, settings, streaming=streaming):
            utterance.sound = Pieces()
            yield utterance


@pytest.fixture(scope="module")
def app() -> Iterator[Served]:
    served = Served(Talker(seconds_per_step=0.01), untrained=lambda: Talker(seconds_per_step=0.01))
    yield served
    served.page.close()


@pytest.fixture(scope="module")
def page(app: Served) -> str:
    return app.address


@pytest.fixture(autouse=True)
def go_on() -> Iterator[None]:
    """Let the sides go on when a test ends, however it ends."""
    yield
    Talker.hold = math.inf


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path / "profile") as chrome:
        yield chrome


def test_text_is_heard_while_it_is_made(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    first = visitor.one("#example .wand-player")
    assert first.is_displayed(), "a result to play before anything is pressed"
    assert first.rect["y"] + first.rect["height"] < DESKTOP[1]

    Talker.hold = 40
    visitor.speak("We type this here and hear it in three ways now")  # 11 words, 110 steps a side
    visitor.wait_until(lambda: visitor.find("#compare-player .wand-player"))
    visitor.wait_until(lambda: visitor.known() == [1.6] * 3)
    visitor.wait_until(lambda: visitor.points() == [40] * 6)
    visitor.wait_until(lambda: visitor.heard() > 0.5)
    Talker.hold = math.inf
    visitor.wait_until(lambda: "Done." in visitor.status())
    visitor.wait_until(lambda: visitor.points() == [110] * 6)
    visitor.wait_until(lambda: visitor.known() == [4.4, 4.4, 4.4])
    visitor.wait_until(lambda: visitor.heard() > 2)
    numbers = visitor.one("#numbers")
    assert "130 kB" in numbers.text
    assert "28 kB" in numbers.text
    assert "−78 %" in numbers.text
    assert numbers.rect["y"] - browser.execute_script("return scrollY") == pytest.approx(0, abs=2), (
        "numbers stay in view"
    )
    assert complaints(browser) == []
    assert asked_elsewhere(browser, page) == []


def test_switch_keeps_the_place(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    Talker.hold = 50
    visitor.speak("word " * 12)
    visitor.wait_until(lambda: visitor.find("#compare-player .wand-player"))
    visitor.wait_until(lambda: visitor.heard() == 2)  # all there is
    visitor.press("#compare-player [data-side=window]")
    assert visitor.heard() == 2, "it began anew, or jumped"
    Talker.hold = math.inf
    visitor.wait_until(lambda: visitor.heard() > 2)
    chosen = visitor.one("#compare-player [aria-pressed=true]")
    assert chosen.get_attribute("data-side") == "window"
    visitor.press("#compare-player .wand-play")
    paused = visitor.heard()
    time.sleep(0.4)
    assert visitor.heard() == paused


def test_error_after_a_result_leaves_it(browser: Chrome, page: str, app: Served) -> None:
    visitor = Visitor(browser, page)
    visitor.speak("Fine")
    visitor.wait_until(lambda: "Done." in visitor.status())
    name = visitor.player().get_attribute("data-name")
    table = visitor.one("#compare-numbers table")
    visitor.speak("   ")
    message = "the text is empty: write a sentence of up to <1000> characters"
    visitor.wait_until(lambda: any(message in toast.text for toast in visitor.find("[data-testid=toast-body]")))
    visitor.wait_until(lambda: f"Nothing was said: {message}" in visitor.status())
    assert "Traceback" not in browser.page_source
    assert visitor.player().get_attribute("data-name") == name
    assert visitor.find("#compare-numbers table") == [table]
    visitor.wait_until(lambda: not visitor.find("[data-testid=toast-body]"), seconds=20)  # it goes by itself
    visitor.speak("Better")
    visitor.wait_until(lambda: visitor.player().get_attribute("data-name") != name)
    visitor.wait_until(lambda: "Done." in visitor.status())
    visitor.press("#results button")
    visitor.wait_until(lambda: len(visitor.find("#history li")) == 2)
    visitor.press("#history li:nth-child(2) .wand-again")
    visitor.wait_until(lambda: visitor.find("#history .wand-player .wand-play"))
    # After an hour: the page still shows the result, and says that its sound is gone.
    for run in list(app.page.stage.store._runs.values()):
        app.page.stage.store.drop(run)
    visitor.press("#history li:nth-child(2) .wand-again")
    visitor.wait_until(lambda: visitor.text("#history .wand-note") == "the sound is gone (404)")
    visitor.press("#history li:nth-child(2) .wand-player .wand-choice")
    time.sleep(0.3)  # the player draws itself anew, several times
    assert visitor.text("#history .wand-note") == "the sound is gone (404)"


def test_stop(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    stop = visitor.one("#compare-stop")
    assert not stop.is_enabled(), "there is nothing to stop yet"
    visitor.speak("word " * 100)  # 30 s
    visitor.wait_until(lambda: ": step " in visitor.status())
    visitor.wait_until(stop.is_enabled)
    visitor.press("#compare-stop")
    visitor.wait_until(lambda: "Stopped." in visitor.status(), seconds=10)
    assert max(visitor.known()) < 39
    visitor.wait_until(lambda: visitor.one("#compare-start").is_enabled())


def test_second_visitor_sees_the_queue(browser: Chrome, page: str, tmp_path: Path) -> None:
    first = Visitor(browser, page)
    first.speak("word " * 100)
    first.wait_until(lambda: ": step " in first.status())
    with chromium(tmp_path / "second") as other:
        second = Visitor(other, page)
        second.speak("short")
        second.wait_until(lambda: second.status() == "Waiting: 1 before you.")
        first.press("#compare-stop")
        second.wait_until(lambda: "Done." in second.status())


def test_endless(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.open("Endless")
    Talker.hold = 40
    visitor.speak("Some words that go on. " * 12)
    visitor.wait_until(lambda: visitor.find("#endless-player .wand-player") and max(visitor.known()) > 1)
    visitor.wait_until(lambda: ": step 40" in visitor.status())
    Talker.hold = math.inf
    visitor.wait_until(lambda: "Done." in visitor.status())
    visitor.wait_until(lambda: "its cache took more than it may" in visitor.text("#endless-notes"))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_every_tab_fits_and_is_legible(page: str, tmp_path: Path, size: tuple[int, int], dark: bool) -> None:
    with chromium(tmp_path / "profile", size, dark=dark) as chrome:
        visitor = Visitor(chrome, page)
        visitor.wait_until(lambda: bool(visitor.find("body.dark")) == dark)
        for title in TABS:
            visitor.open(title)
            assert visitor.width() <= size[0], f"{title}, before a result"
            if title != "Your model":
                visitor.speak("Speak")
                visitor.wait_until(lambda: "Done." in visitor.status())
                visitor.one(f"#{visitor.tab}-numbers table")
            visitor.unfold()
            assert visitor.width() <= size[0], title
            assert visitor.pale() == [], title


def test_keyboard_alone(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.write("Typed").send_keys(Keys.SHIFT, Keys.ENTER)
    visitor.wait_until(lambda: "Done." in visitor.status())
    start = visitor.one("#compare-start")
    box = visitor.write("Again")
    for _ in range(30):
        if browser.switch_to.active_element == start:
            break
        browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element == start
    assert box.get_property("value") == "Again"
    name = visitor.player().get_attribute("data-name")
    start.send_keys(Keys.ENTER)
    visitor.wait_until(lambda: visitor.player().get_attribute("data-name") != name)
    line = visitor.one("#compare-status [role=status]")
    assert line.get_attribute("aria-live") == "polite"


def test_link_repeats_with_the_same_settings(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, f"{page}?tab=endless&text=Once+more&speaker=high&window=32&memory=4.0")
    box = visitor.one("#endless-text textarea")
    visitor.wait_until(lambda: box.get_property("value") == "Once more")
    visitor.wait_until(box.is_displayed)
    assert visitor.one("#endless-window input[type=number]").get_property("value") == "32"
    assert visitor.one("#endless-memory input").get_property("value") == "4 times"


def test_recording_that_cannot_be_read_is_refused_at_once(browser: Chrome, page: str, tmp_path: Path) -> None:
    (tmp_path / "voice.wav").write_text("this is a text", encoding="utf-8")
    visitor = Visitor(browser, page)
    visitor.unfold()
    visitor.one("#compare-recording input[type=file]").send_keys(str(tmp_path / "voice.wav"))
    words = "'voice.wav' is not audio that can be read"
    visitor.wait_until(lambda: any(words in toast.text for toast in visitor.find("[data-testid=toast-body]")))
    visitor.wait_until(lambda: visitor.find("#compare-recording input[type=file]"))  # it is empty again


def test_nothing_shows_beside_the_numbers(browser: Chrome, page: str) -> None:
    """They stay in view while the text moves under them, whose letters lean out by a pixel."""
    visitor = Visitor(browser, page)
    numbers = visitor.one("#numbers")
    left, right, bottom = browser.execute_script(
        "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right, box.height]", numbers
    )
    strips = set()
    for place in range(200, 400, 10):
        browser.execute_script(f"scrollTo(0, {place})")
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        strips.add(tuple(picture.crop((int(x), 0, int(x) + 5, int(bottom) - 1)).tobytes() for x in (left - 4, right)))
    assert len(strips) == 1


def test_blind_test(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.press("#blind button")
    visitor.wait_until(lambda: visitor.one("#blind-next").is_displayed())
    visitor.press("#blind-next")
    visitor.wait_until(lambda: "Pair 1 of 10" in visitor.text("#blind-status"))
    choices = "#blind-player .wand-choice"
    visitor.wait_until(lambda: [button.text for button in visitor.find(choices)] == ["A", "B"])
    shown = visitor.one("#blind-player .wand-player").get_attribute("outerHTML") or ""
    assert not any(word in shown for word in ("full", "window", "Student", "Teacher", "student", "teacher"))
    visitor.wait_until(lambda: visitor.one("#blind-vote-a").is_enabled())
    visitor.press("#blind-vote-a")
    visitor.wait_until(lambda: "1 of 10 voted" in visitor.text("#blind-status"))
    visitor.wait_until(lambda: not visitor.one("#blind-vote-a").is_enabled())


def test_example_fills_the_text(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.wait_until(lambda: len(visitor.find("#examples button")) == 3)
    visitor.press("#examples button:nth-child(2)")
    box = visitor.one("#compare-text textarea")
    visitor.wait_until(lambda: str(box.get_property("value")).startswith("Glue the sheet"))
