"""Control Chromium over its DevTools pipe, without a package such as Selenium."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """A headless Chromium window that shows one page.

    Attributes:
        console: Errors that the page or the browser has logged.
        requests: URLs that the page has requested, except `data:` and `blob:` URLs.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        commands, answers = os.pipe(), os.pipe()
        self._out, self._in = commands[1], answers[0]
        # Chromium reads commands from file descriptor 3 and writes answers to 4.
        shell = f'exec {CHROMIUM} "$@" 3<&{commands[0]} 4>&{answers[1]}'
        arguments = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *arguments],
            pass_fds=(commands[0], answers[1]),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands[0])
        os.close(answers[1])
        self._buffer, self._last_id, self._session = b"", 0, {}
        self.console: list[str] = []
        self.requests: list[str] = []
        pages = self("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self(f"{domain}.enable")
        self.resize(width, height)

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read_event(timeout=60)
            if answer.get("id") == self._last_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def open(self, address: str) -> None:
        self("Page.navigate", url=address)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
        self("Emulation.setDeviceMetricsOverride", mobile=width < 600, **metrics)

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page, await it if it is a promise, return its value."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 90) -> None:
        """Wait until an expression in the page, or the value of its promise, is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Promise.resolve({script}).then(Boolean)"):
            state = (script, self.console, self.run("document.body?.innerText"))
            assert time.monotonic() < end, state
            time.sleep(0.1)

    def upload(self, selector: str, file: Path) -> None:
        """Put a file into an `<input type=file>`."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, file: Path) -> None:
        data = self("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)

    def _read_event(self, timeout: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], timeout)[0], "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        text, self._buffer = self._buffer.split(b"\0", 1)
        event = json.loads(text)
        self._record(event.get("method"), event.get("params", {}))
        return event

    def _record(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.console.append(str([arg.get("value") for arg in params["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                self.requests.append(address)
