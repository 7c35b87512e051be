"""The report in a real browser: it loads without a complaint, sorts, searches and filters, and never scrolls sideways.

Chromium is driven over its debugging pipe, so no further package is needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.report import compare
from eval.report.html import Html

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


class Browser:
    """One page of a headless Chromium."""

    def __init__(self) -> None:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        read_there, self._write = os.pipe()
        self._read, write_there = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --remote-debugging-pipe"
        command = (
            f'exec "{CHROMIUM}" {flags} --user-data-dir={self.profile} about:blank 3<&{read_there} 4>&{write_there}'
        )
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._buffer, self._count, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self._loaded = False
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            got = os.read(self._read, 1 << 20)
            assert got, "the browser has gone"
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(line)
        method, details = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(details["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.complaints.append(str(details["args"]))
        elif method == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.complaints.append(details["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not details["request"]["url"].startswith(
            ("file:", "data:", "about:")
        ):
            self.complaints.append("asked for " + details["request"]["url"])
        return event

    def open(self, path: Path, width: int = 1280, height: int = 900, **media: str) -> None:
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items() if k != "media"]
        self.call("Emulation.setEmulatedMedia", media=media.get("media", ""), features=features)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self._loaded, self.complaints = False, []
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._next()

    def do(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self, top: int = 0, height: int | None = None) -> bytes:
        whole = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": whole["width"], "height": height or whole["height"] - top, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"])

    def close(self) -> None:
        os.close(self._write)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._read)
        shutil.rmtree(self.profile, ignore_errors=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    started = Browser()
    yield started
    started.close()


def _column(browser: Browser, table: str, column: int) -> list[str]:
    cells = f"[...document.querySelectorAll('{table} tbody tr')].map((row) => row.cells[{column}]"
    return list(browser.do(f"{cells}.querySelector('.value').textContent)"))


def _head(table: str, words: str) -> str:
    return f"[...document.querySelectorAll('{table} th button')].find((b) => b.textContent.trim() === '{words}')"


def test_it_loads_without_a_complaint_and_fits(browser: Browser, make_run: Callable[..., Path]) -> None:
    report = Html().write(make_run())
    for width in (400, 800, 1280, 1920):
        browser.open(report, width)
        assert browser.complaints == []
        assert browser.do("document.documentElement.scrollWidth") <= width
    browser.open(report, 1280)
    box = "document.querySelector('#leaderboard .scroll')"
    assert browser.do(f"{box}.scrollWidth - {box}.clientWidth") <= 0, (
        "the leaderboard with three roles fits a laptop's window"
    )


def test_light_and_dark(browser: Browser, make_run: Callable[..., Path]) -> None:
    report = Html().write(make_run(instructions=10))
    seen = {}
    for scheme in ("light", "dark"):
        browser.open(report, prefers_color_scheme=scheme)
        seen[scheme] = browser.do(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('svg .solid')).fill]"
        )
    assert seen["light"][0] == "rgb(255, 255, 255)" and seen["dark"][0] == "rgb(18, 20, 23)"
    assert seen["light"][1] != seen["dark"][1]
    browser.open(report, prefers_color_scheme="dark", media="print")
    assert browser.do("getComputedStyle(document.body).color") == "rgb(22, 25, 29)", "paper is white"


def test_tables_sort(browser: Browser, make_run: Callable[..., Path]) -> None:
    run = make_run()
    browser.open(Html().write(run))
    board = json.loads((run / "leaderboard.json").read_text())
    by_gold = [r["method"] for r in sorted(board, key=lambda r: -r["gold"])]
    assert _column(browser, ".board", 1) == [r["method"] for r in board]
    assert by_gold != [r["method"] for r in board], "else the test proves nothing"
    browser.do(_head(".board", "Gold utility") + ".click()")
    assert _column(browser, ".board", 1) == by_gold
    assert browser.do(_head(".board", "Gold utility") + ".closest('th').getAttribute('aria-sort')") == "descending"
    browser.do(_head(".board", "Gold utility") + ".click()")
    assert _column(browser, ".board", 1) == by_gold[::-1]
    browser.do(_head(".board", "Method") + ".click()")
    assert _column(browser, ".board", 1) == sorted(by_gold)
    # by keyboard
    browser.do(_head(".board", "Rank") + ".focus()")
    browser.call(
        "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
    )
    assert _column(browser, ".board", 1) == [r["method"] for r in board]
    assert browser.complaints == []


def test_examples_can_be_searched_and_filtered(browser: Browser, make_run: Callable[..., Path]) -> None:
    browser.open(Html().write(make_run()))
    shown = "[...document.querySelectorAll('.example')].filter((e) => !e.hidden)"
    assert browser.do(shown + ".length") == 20

    def search(words: str) -> None:
        browser.do(f"box = document.querySelector('[data-search]'); box.value = '{words}'")
        browser.do("box.dispatchEvent(new Event('input', {bubbles: true}))")

    search("TELL ME A STORY")
    headings = browser.do(shown + ".map((e) => e.querySelector('.heading').textContent)")
    assert 0 < len(headings) < 20 and all("Tell me a story" in h for h in headings)
    assert browser.do("document.querySelector('[data-count]').textContent") == f"{len(headings)} of 20 shown"
    search("no such words")
    assert browser.do(shown + ".length") == 0
    search("")
    browser.do("document.querySelector('[data-method=ppo]').click()")
    cards = "[...document.querySelectorAll('.example[open] .card')].filter((c) => !c.hidden)"
    named = browser.do(cards + ".map((c) => c.dataset.card || 'baseline')")
    assert "ppo" not in named and {"baseline", "dpo"} <= set(named)
    browser.do("document.querySelector('[data-split]').click()")
    assert 0 < browser.do(shown + ".length") < 20
    assert browser.do(shown + ".every((e) => e.querySelector('.card:not([hidden])[data-disagree]'))")
    browser.do("document.querySelector('[data-open]').click()")
    assert browser.do("document.querySelectorAll('.example[open]').length") == 20
    assert browser.complaints == []


def test_attacks_do_nothing(browser: Browser, make_run: Callable[..., Path]) -> None:
    attack = '"><img src=x onerror="window.taken = 1"></script><script>window.taken = 2</script>\u202e'
    run = make_run(instructions=12, rename={"ppo": attack, "dpo": "a'b\"c\\"}, texts=lambda text: text + attack)
    browser.open(Html().write(run))
    browser.do("[...document.querySelectorAll('th button, [data-method], [data-open]')].forEach((b) => b.click())")
    assert browser.do("window.taken === undefined")
    assert browser.complaints == []
    assert browser.do("document.documentElement.scrollWidth") <= 1280


def test_it_prints(browser: Browser, make_run: Callable[..., Path]) -> None:
    browser.open(Html().write(make_run()))
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF") and 3 <= printed.count(b"/Type /Page\n") <= 12


def test_the_comparison_of_two_runs(browser: Browser, make_run: Callable[..., Path], tmp_path: Path) -> None:
    found, one, two = compare.compare(make_run("a"), make_run("b", seed=2))
    page = compare.write(found, one, two, tmp_path / "two.html")
    for width in (1280, 390):
        browser.open(page, width=width)
        assert browser.complaints == []
        assert browser.do("document.documentElement.scrollWidth") <= width
        assert browser.do("document.querySelectorAll('svg.chart').length") == 3
    browser.do("document.querySelector('table[data-sortable] th:nth-child(2) button').click()")
    column = browser.do(
        "[...document.querySelectorAll('table[data-sortable] tr')].slice(1, 7).map((r) => +r.cells[1].dataset.sort)"
    )
    assert column in (sorted(column), sorted(column, reverse=True))
