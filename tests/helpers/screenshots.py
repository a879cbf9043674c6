"""Write the pictures of the app in docs/: on a desktop, on a phone, and while it runs.

Run it from the root with ``make screenshots``; it needs Debian's chromium and chromium-driver.
"""

from __future__ import annotations

import io
import re
import tempfile
import time
from pathlib import Path

from browser import DESKTOP, PHONE, Visitor, chromium
from PIL import Image
from selenium.webdriver import Chrome
from served_app import Served

from wandlib.systems import load_system

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Start the app with the embedded voice, visit it, and take the pictures."""
    system = load_system("mini")
    for attention in ("full", "window"):
        system.synthesize("Ready.", attention=attention)
    served = Served(system, untrained=lambda: load_system("mini", student=False))
    with tempfile.TemporaryDirectory() as folder:
        with chromium(Path(folder) / "desktop", DESKTOP) as browser:
            visitor = Visitor(browser, served.address)
            time.sleep(1)
            save(browser, "app_desktop.png")
            visitor.open("Endless")
            visitor.press("#endless-start")
            visitor.wait_until(lambda: "Teacher, full attention: memory limit" in visitor.status(), 300)
            visitor.wait_until(lambda: int(re.findall(r"step (\d+)", visitor.status())[0]) > 400, 300)
            save(browser, "app_running.png")
            visitor.press("#endless-stop")
            visitor.wait_until(lambda: "Stopped." in visitor.status())
        with chromium(Path(folder) / "phone", PHONE) as browser:
            visitor = Visitor(browser, served.address)
            visitor.press("#compare-start")
            visitor.wait_until(lambda: "Done." in visitor.status(), 300)
            time.sleep(1)
            save(browser, "app_phone.png")
    served.page.close()


def save(browser: Chrome, name: str) -> None:
    """Store what the browser shows."""
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture.save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
