"""A headless Chromium to drive a page with, over its own debugging pipe: JSON messages that end in a zero byte.

    def test(open_page):
        with open_page(path) as page:
            page.evaluate("document.title")

Descriptor 3 of the browser is where it reads, 4 where it writes, so nothing but the standard library is needed.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 300.0  # after which a browser that says nothing is taken for dead
# Puts the two ends at the descriptors that Chromium wants, then becomes Chromium.
LAUNCHER = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


def find_browser() -> str | None:
    """The path of a Chromium, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.to_browser, self.from_browser = to_browser, from_browser
        self.buffer, self.count, self.session = b"", 0, ""

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def wait_for(self, event: str) -> None:
        while self._next().get("method") != event:
            pass

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.from_browser], [], [], PATIENCE_S)
            assert ready, "the browser says nothing"
            chunk = os.read(self.from_browser, 1 << 20)
            assert chunk, "the browser is gone"
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, path: Path, width: int, height: int, dark: bool) -> None:
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Page.enable")
        self.ask("Page.navigate", url=path.absolute().as_uri())
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def settle(self) -> None:
        """Let the page draw what was changed."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height in the window, after scrolling it into view."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        values = self.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({found}.getBoundingClientRect())")
        return tuple(values)

    def drag(self, start: tuple[float, float], end: tuple[float, float], steps: int = 5) -> None:
        """Press the mouse, move it evenly, let it go."""
        self._mouse("mousePressed", start)
        for i in range(1, steps + 1):
            self._mouse("mouseMoved", tuple(a + (b - a) * i / steps for a, b in zip(start, end, strict=True)))
        self._mouse("mouseReleased", end)
        self.settle()

    def _mouse(self, kind: str, at: tuple[float, ...]) -> None:
        pressed = {"buttons": 1} if kind != "mouseReleased" else {}
        self.ask("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1, **pressed)

    def press(self, key: str, times: int = 1) -> None:
        """A key by its name, such as ArrowRight, on whatever has the focus."""
        codes = {
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
            "Home": 36,
            "End": 35,
            "PageUp": 33,
            "PageDown": 34,
        }
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])
        self.settle()

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        picture = self.ask("Page.captureScreenshot", captureBeyondViewport=True, optimizeForSpeed=True)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def browse(path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """The page at `path` in a browser of its own, which is ended in the end."""
    browser = find_browser()
    assert browser
    theirs_in, ours_out = _high(os.pipe())
    ours_in, theirs_out = _high(os.pipe())
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run", "about:blank"]
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [sys.executable, "-c", LAUNCHER, str(theirs_in), str(theirs_out), browser]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", *options],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out):
            os.close(end)
        try:
            page = Page(ours_out, ours_in)
            page.open(path, width, height, dark)
            yield page
        finally:
            process.kill()
            process.wait()
            for end in (ours_in, ours_out):
                os.close(end)


@pytest.fixture
def open_page() -> Callable[..., Any]:
    """`browse`, where there is a browser."""
    if find_browser() is None:
        pytest.skip(f"no browser to open the page with: none of {', '.join(NAMES)} is on the PATH")
    return browse


def _high(ends: tuple[int, int]) -> tuple[int, int]:
    """The same pipe at descriptors above those that the browser wants."""
    copies = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 10)
    for end in ends:
        os.close(end)
    return copies
