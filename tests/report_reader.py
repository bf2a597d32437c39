"""A reader of report.html: headless Chromium, clicked and typed into."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
    "disable-background-networking", "disable-component-update", "window-size=1280,1400",
)  # fmt: skip


def start(profile: Path):
    """Start Chromium with a new profile; None where it is not installed."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(programs[1]))


class Reader:
    """What a reader does with the page, in the words of the tests."""

    def __init__(self, driver, out):
        self.driver, self.out = driver, out
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}  # the driver does not wait
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [calm]})
        driver.get((out / "report.html").as_uri())
        self.until("document.documentElement.dataset.viewer === 'ready'")

    def js(self, script, *given):
        return self.driver.execute_script(script, *given)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def until(self, condition):
        for _ in range(200):
            if self.js(f"return {condition}"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never: {condition}")

    def choose(self, identity, value):
        """Pick an option or set a field as a hand does: value, then its event."""
        kind = "change" if identity in ("show", "where", "side") else "input"
        self.js(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event(arguments[2], {bubbles: true}));", identity, value, kind,
        )  # fmt: skip
        time.sleep(0.05)
        self.until("Viewer.state.show === document.getElementById('show').value")

    def count(self):
        return int(self.one("#count").get_attribute("data-count"))

    def expect(self, number):
        self.until(f"+document.getElementById('count').dataset.count === {number}")
        assert self.one("#count").text == f"{number:,}"

    def place(self):
        return [float(self.one(f"#{a}").get_property("value")) for a in "xyz"]


def shown(reader, plane):
    """What a slice shows now."""
    return reader.js(
        "return document.querySelector(`.slice[data-plane=${arguments[0]}] canvas`).toDataURL()",
        plane,
    )


def press(reader, table):
    script = f'document.querySelector("{table}").parentElement.nextElementSibling.click()'
    reader.js(script)


def arrived(path):
    for _ in range(100):
        if path.exists():
            return path.read_bytes()
        time.sleep(0.05)
    raise AssertionError(f"{path.name} was not downloaded")
