"""Headless Chromium, and what a visitor of the app does and sees in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")
HERE = Path(__file__).parent
SECONDS = 60
NOT_YET = (
    *(NoSuchElementException, StaleElementReferenceException),
    *(ElementNotInteractableException, ElementClickInterceptedException),
)
"""gradio draws a part when it is first shown, and replaces what it draws anew: an element may be missing for a moment,
or be gone between finding and reading it."""
DESKTOP, PHONE = (1280, 900), (390, 844)


def installed() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@contextmanager
def chromium(profile: Path, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> Iterator[Chrome]:
    """Start a browser that resolves no name but this machine's; it ends with the context."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    chrome = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    try:
        resize(chrome, size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        yield chrome
    finally:
        chrome.quit()


def resize(chrome: Chrome, size: tuple[int, int]) -> None:
    """Set the page's size; a narrow one is a phone's."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


class Visitor:
    """What a visitor does and sees."""

    def __init__(self, browser: Chrome, page: str, tab: str = "compare") -> None:
        self.browser, self.tab = browser, tab
        browser.get(page)
        self.wait_until(lambda: self.find("#compare-start"))

    def find(self, selector: str) -> list[WebElement]:
        """Return what is there now."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """Return the element, as soon as there is one."""
        return self.wait_until(lambda: self.browser.find_element(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        return self.wait_until(lambda: [self.one(selector).text])[0]

    def wait_until(self, happens: Callable[[], T], seconds: float = SECONDS) -> T:
        return WebDriverWait(self.browser, seconds, 0.05, NOT_YET).until(lambda _: happens())

    def open(self, title: str) -> None:
        """Open a tab; on a phone some are in a menu."""
        self.tab = {"Window": "windows", "Your model": "model"}.get(title, title.lower())
        for button in self.find(".overflow-menu > button"):
            if button.is_displayed() and not self._click_tab(title):
                self._click(button)
        self.wait_until(lambda: self._click_tab(title))

    def _click_tab(self, title: str) -> bool:
        for button in self.find("button[role=tab], .overflow-dropdown button"):
            if button.text.strip() == title and button.is_displayed():
                return self._click(button)
        return False

    def unfold(self) -> None:
        """Open whatever is folded in, in this tab and below the tabs."""
        folded = "button.label-wrap:not(.open)"

        def all_open() -> bool:
            closed = [button for button in self.find(folded) if button.is_displayed()]
            return not closed or not self._click(closed[0])

        self.wait_until(all_open)

    def write(self, text: str) -> WebElement:
        def written() -> WebElement | None:
            box = self.browser.find_element(By.CSS_SELECTOR, f"#{self.tab}-text textarea")
            box.send_keys(Keys.CONTROL, "a")
            box.send_keys(text)
            return box if box.get_property("value") == text else None

        return self.wait_until(written)

    def press(self, selector: str) -> None:
        """Press a button as soon as it can be pressed."""
        self.wait_until(lambda: self.one(selector).is_enabled() and self._click(self.one(selector)))

    def _click(self, button: WebElement) -> bool:
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        return True

    def speak(self, text: str) -> None:
        self.write(text)
        self.press(f"#{self.tab}-start")

    def status(self) -> str:
        return self.text(f"#{self.tab}-status [role=status]")

    def points(self) -> list[int]:
        """Points in each line of both plots."""
        lines = f"document.querySelectorAll('#{self.tab}-curves svg.curves polyline')"
        return list(self.browser.execute_script(f"return [...{lines}].map((line) => line.points.length)"))

    def player(self) -> WebElement:
        return self.one(f"#{self.tab}-player .wand-player")

    def known(self) -> list[float]:
        """Seconds of sound that have come, for each side."""
        return [float(each) for each in (self.player().get_attribute("data-known") or "").split()]

    def heard(self) -> float:
        return float(self.player().get_attribute("data-heard") or 0)

    def width(self) -> int:
        """How wide the page is, what sticks out included."""
        return int(self.browser.execute_script((HERE / "width.js").read_text(encoding="utf-8")))

    def pale(self) -> list[Any]:
        """Visible texts whose contrast is below 4.5 (3 where they are large), as WCAG 2 computes it."""
        return list(self.browser.execute_script((HERE / "contrast.js").read_text(encoding="utf-8")))


def asked_elsewhere(browser: Chrome, page: str) -> list[str]:
    """Everything that the page fetched, or tried to, from another place than the app."""
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    return [name for name in fetched if not name.startswith((page, "data:", "blob:"))]


def complaints(browser: Chrome) -> list[str]:
    """Errors in the browser's console."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
