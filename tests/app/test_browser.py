"""The app as a visitor meets it: a real browser, a sentence, two players, two growing curves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import pytest
from fake_system import FakeSystem
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from served_app import free_port

from app.page import build_app, launch

pytestmark = pytest.mark.browser

SECONDS = 30
WINDOW_SIZE = (1400, 1050)


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The address of an app that takes 10 ms a step."""
    blocks: gr.Blocks = build_app(FakeSystem(seconds_per_step=0.01))
    yield launch(blocks, "127.0.0.1", free_port())
    blocks.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Headless Chromium that resolves no name but this machine's."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size={},{}".format(*WINDOW_SIZE),
    ):
        options.add_argument(argument)
    chrome = Chrome(options=options, service=ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


class Visitor:
    """What a visitor does and sees."""

    def __init__(self, browser: Chrome, page: str) -> None:
        self.browser = browser
        browser.get(page)
        self.wait_until(lambda: self.find("#start"))

    def find(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait_until(self, happens: Callable[[], object], seconds: float = SECONDS) -> None:
        # gradio replaces what it draws anew, so that an element may be gone between finding and reading it.
        gone = [StaleElementReferenceException]
        WebDriverWait(self.browser, seconds, 0.05, gone).until(lambda _: happens())

    def speak(self, text: str) -> None:
        (box,) = self.find("#text textarea")
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(text)
        (button,) = self.find("#start")
        button.click()

    def status(self) -> str:
        (line,) = self.find("#status")
        return line.text

    def sounds(self) -> list[str]:
        """Addresses of the sounds that the two players hold."""
        links = self.find("#full a[download]") + self.find("#windowed a[download]")
        return [link.get_attribute("href") or "" for link in links]

    def points(self, curve: str) -> list[int]:
        """Points in each line of a curve."""
        return [len((line.get_attribute("points") or "").split()) for line in self.find(f"#{curve} polyline")]


def test_sentence_is_spoken_twice(browser: Chrome, page: str, tmp_path: Path) -> None:
    visitor = Visitor(browser, page)
    assert visitor.sounds() == []
    visitor.speak("We type this here and hear it twice in two ways")  # 11 words, 110 steps, over 1.1 s a run

    visitor.wait_until(lambda: visitor.points("cache"))
    early = visitor.points("cache")
    assert early[0] < 110, "the curve was drawn only when all was over"
    visitor.wait_until(lambda: len(visitor.sounds()) == 2)
    visitor.wait_until(lambda: "Done: play both." in visitor.status())

    visitor.wait_until(lambda: visitor.points("cache") == visitor.points("milliseconds") == [110, 110])
    shown = {"full", "window", "110", "130.0", "28.0", "end token"}
    visitor.wait_until(lambda: shown <= {cell.text for cell in visitor.find("#numbers [role=gridcell]")})
    first, second = (heard_seconds(browser, address) for address in visitor.sounds())
    assert first == second == pytest.approx(110 / FakeSystem.codes_per_second, abs=0.05)

    assert browser.save_screenshot(str(tmp_path / "page.png"))
    assert os.path.getsize(tmp_path / "page.png") > 20_000
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert asked_elsewhere(browser, page) == []


def test_error_is_read_and_mended(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.speak("   ")
    message = "the text is empty: write a sentence of up to <1000> characters"
    visitor.wait_until(lambda: any(message in toast.text for toast in visitor.find("[data-testid=toast-body]")))
    assert "Traceback" not in browser.page_source
    visitor.speak("Better")
    visitor.wait_until(lambda: len(visitor.sounds()) == 2)


def test_stop(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.speak("word " * 100)  # 10 s a run
    visitor.wait_until(lambda: ": step " in visitor.status())
    (stop,) = visitor.find("#stop")
    stop.click()
    visitor.wait_until(lambda: "Stopped." in visitor.status(), seconds=5)
    assert visitor.sounds() == []


def test_example_fills_the_text(browser: Chrome, page: str) -> None:
    visitor = Visitor(browser, page)
    visitor.wait_until(lambda: len(visitor.find("#examples button")) == 3)
    visitor.find("#examples button")[1].click()
    (box,) = visitor.find("#text textarea")
    visitor.wait_until(lambda: str(box.get_property("value")).startswith("Glue the sheet"))


def heard_seconds(browser: Chrome, address: str) -> float:
    """Length of a sound, as the browser decodes it."""
    return float(
        browser.execute_async_script(
            "const [address, done] = arguments;"
            "fetch(address).then(answer => answer.arrayBuffer())"
            ".then(bytes => new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes))"
            ".then(sound => done(sound.duration), problem => done(String(problem)));",
            address,
        )
    )


def asked_elsewhere(browser: Chrome, page: str) -> list[str]:
    """Everything that the page fetched, or tried to, from another place than the app."""
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    return [name for name in fetched if not name.startswith((page, "data:", "blob:"))]
