"""A real browser that a test drives, by Chromium's DevTools protocol over two pipes: no package is needed for it.

Not here: what a page has to do.
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["disable-background-networking", "disable-component-update", "disable-sync", "disable-quic", "no-first-run"]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", *(f"--{flag}" for flag in QUIET)]
AT_3_AND_4 = """import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])"""
"""Chromium's pipes are its descriptors 3 and 4."""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


class Tab:
    """One page: ``send`` a command, ``evaluate`` an expression, ``wait`` until one is true; ``asked``: all URLs."""

    def __init__(self, reader, writer):
        self._reader, self._writer, self._ids, self._rest = reader, writer, itertools.count(1), b""
        self._sessions, self.asked, self.said = set(), [], []
        (target,) = (t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        flat = {"targetId": target["targetId"], "flatten": True}
        self.session = self._call("Target.attachToTarget", flat)["sessionId"]
        self._listen(self.session)
        self.send("Page.enable")

    def _listen(self, session):
        """To a page or a worker: what it fetches, what it logs, and the workers that it starts."""
        self._sessions.add(session)
        for method in ("Network.enable", "Log.enable", "Runtime.enable"):
            self._post(method, {}, session)
        auto = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._post("Target.setAutoAttach", auto, session)
        self._post("Runtime.runIfWaitingForDebugger", {}, session)

    def send(self, method, **words):
        """Do something with the page, and return what it answers."""
        return self._call(method, words, self.session)

    def evaluate(self, expression):
        """The value of a JavaScript expression, a promise's once it has one."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression, seconds=60):
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, (
                f"{expression} is still {value!r}; the page says {self.status()!r}; {self.said}"
            )
            time.sleep(0.05)
        return value

    def status(self):
        """What the page says in its line."""
        return self.evaluate("document.getElementById('status')?.textContent")

    def open(self, url, width=1280, height=800):
        """Go to a page, in a window of that size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def choose(self, file, selector="#file"):
        """Choose a file in a field of the page."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drag(self, *places, selector="#view"):
        """Press, move and let go of the mouse at places, (x, y) as shares of an element's sides."""
        x, y, w, h = self.evaluate(
            f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
            " return [b.x, b.y, b.width, b.height]; })()"
        )
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (u, v) in zip(kinds, [*places, places[-1]], strict=True):
            at = {"x": x + u * w, "y": y + v * h, "button": "left", "buttons": 1, "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def press(self, key, code, number):
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        words = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.send("Input.dispatchKeyEvent", type="keyDown", **words, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **words)

    def download(self, selector, folder):
        """Click what downloads a file, and return its path."""
        self._call("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
        for old in folder.iterdir():
            old.unlink()
        self.evaluate(f"document.querySelector('{selector}').click()")
        end = time.monotonic() + 20
        while not (new := list(folder.glob("*.png"))):  # it has another name until it is whole
            assert time.monotonic() < end, "nothing was downloaded"
            time.sleep(0.05)
        return new[0]

    def screenshot(self, path):
        """Write a picture of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _post(self, method, words, session=None):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": words, **({"sessionId": session} if session else {})}
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        return number

    def _call(self, method, words=None, session=None):
        number = self._post(method, words or {}, session)
        while True:
            message = self._next()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._heard(message)

    def _heard(self, message):
        words = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(words["request"]["url"])
            case "Target.attachedToTarget" if words["sessionId"] not in self._sessions:
                self._listen(words["sessionId"])
            case "Log.entryAdded" if words["entry"]["level"] == "error":
                self.said.append(words["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.said.append(str(words["exceptionDetails"].get("exception", words["exceptionDetails"]))[:500])

    def _next(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._reader, 1 << 16)
            assert chunk, "the browser has ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)


@contextmanager
def chromium(folder, *flags):
    """A tab of a browser of its own, whose files are in ``folder``; it is ended after the ``with``."""
    ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
    words = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    ends = [str(ours[0]), str(theirs[1])]
    with open(os.devnull, "wb") as nothing:
        process = subprocess.Popen(
            [sys.executable, "-c", AT_3_AND_4, *ends, *words],
            pass_fds=(ours[0], theirs[1]),
            stdout=nothing,
            stderr=nothing,
        )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        yield Tab(theirs[0], ours[1])
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(ours[1])
        os.close(theirs[0])
