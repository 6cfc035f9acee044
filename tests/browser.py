"""A headless Chromium that tests talk to by the DevTools protocol, over a pipe: no package, no port."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]


class Browser:
    """One page of a running browser, with what it complained of and what it asked for."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._buffer, self._id = b"", 0
        self.complaints, self.requests, self.loaded = [], [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    session = None

    def call(self, method, timeout=60, **params):
        """Send a command and return its result; events that come meanwhile are noted."""
        self._id += 1
        wanted = self._id
        message = {"id": wanted, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        return self._until(lambda m: m.get("id") == wanted, timeout, method)["result"]

    def _until(self, wanted, timeout, what):
        deadline = time.monotonic() + timeout
        while True:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(text)
                self._note(message)
                if wanted(message):
                    assert "error" not in message, f"{what}: {message}"
                    return message
            ready, _, _ = select.select([self._receive], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{what}: no answer in {timeout} s"
            data = os.read(self._receive, 1 << 20)
            assert data, f"{what}: the browser has gone"
            self._buffer += data

    def _note(self, message):
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(params["args"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.loadEventFired":
                self.loaded = True

    def open(self, path):
        """Load a file; return when the page says it is loaded."""
        self.loaded = False
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        if not self.loaded:
            self._until(lambda m: m.get("method") == "Page.loadEventFired", 60, "load")

    def run(self, script):
        """Evaluate an expression (or a promise) in the page and return its value."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition, timeout=20):
        """Wait for an expression to hold in the page."""
        deadline = time.monotonic() + timeout
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never: {condition}"
            time.sleep(0.02)

    def size(self, width, height, mobile=False):
        """Lay the page out for a window of this size, CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def media(self, media="screen", scheme="light"):
        """Show the page as on a screen or on paper, to a user of light or dark colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)


@contextlib.contextmanager
def browser():
    """Start a browser and end it."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # The protocol's file descriptors are 3 and 4.
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash", CHROMIUM, *flags],
            pass_fds=(to_read, from_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            yield Browser(to_write, from_read)
        finally:
            os.close(to_write)  # the browser ends when its pipe does
            os.close(from_read)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
