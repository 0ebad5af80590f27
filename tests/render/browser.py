"""A headless Chromium for tests, spoken to over its DevTools protocol on two pipes.

https://chromedevtools.github.io/devtools-protocol: JSON messages, each ended by a zero byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chrome-headless-shell",
    "chromium-headless-shell",
)

# The browser reads descriptor 3 and writes descriptor 4.
_EXEC = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(commands, 3), os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The first browser on PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page. ``problems`` collects what a person would see in red; ``requests`` every URL asked for."""

    def __init__(self, binary: str, profile: Path) -> None:
        commands_out, commands_in = os.pipe()
        answers_out, answers_in = os.pipe()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._buffer, self._number, self._session = b"", 0, ""
        flags = (
            "--headless --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage "
            "--disable-background-networking --disable-component-update --proxy-server=127.0.0.1:9 "
            f"--hide-scrollbars --remote-debugging-pipe --user-data-dir={profile} about:blank"
        )
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _EXEC,
                str(commands_out),
                str(answers_in),
                binary,
                *flags.split(),
            ],
            pass_fds=(commands_out, answers_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        self._in, self._out = commands_in, answers_out
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Load a file and wait until its script has said that it is ready, or has failed."""
        self.problems.clear()
        self.requests.clear()
        self._call("Page.navigate", url=path.as_uri())
        ready = (
            "new Promise(done => { const look = () => document.documentElement.dataset.ready"
            " ? done(true) : setTimeout(look, 20); look(); setTimeout(() => done(false), 60000); })"
        )
        while self.run("location.href") != path.as_uri():
            pass
        assert self.run(ready), self.problems

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key of the keyboard, down and up."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self._call("Input.dispatchKeyEvent", type="keyUp", **named)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self._call("Input.insertText", text=text)

    def view(self, width: int, height: int, scheme: str = "light", media: str = "") -> None:
        """The size of the window, the colour scheme that the system prefers, screen or print."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)

    def screenshot(self) -> str:
        """The window as a PNG in base 64."""
        return str(self._call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """End the browser."""
        self._send("Browser.close", {}, "")
        os.close(self._in)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)

    def _call(self, method: str, **parameters: Any) -> Any:
        number = self._send(method, parameters, self._session)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.problems.append(json.dumps(parameters["args"])[:500])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append("dialog: " + parameters["message"])

    def _send(self, method: str, parameters: dict[str, Any], session: str) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        return self._number

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._out, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message
