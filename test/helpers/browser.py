# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that is asked for pictures of a page, by the DevTools protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import cv2
import numpy as np

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COMMANDS_FD, ANSWERS_FD = 3, 4
"""Where Chromium reads and writes with ``--remote-debugging-pipe``."""


class Browser:
    """One page of a running browser."""

    def __init__(self, commands: int, answers: int, url: str) -> None:
        """Open a page; the two are ends of pipes."""
        self._commands, self._answers, self._left = commands, answers, b""
        self._numbers, self._session = count(1), {}
        target = self._ask("Target.createTarget", url=url)["targetId"]
        self._session = {"sessionId": self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def picture(self) -> np.ndarray:
        """What is to be seen now, RGB (H, W, 3) uint8."""
        png = base64.b64decode(self._ask("Page.captureScreenshot")["data"])
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def _ask(self, method: str, **params: object) -> dict:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict:
        """The next message; messages end with a zero byte."""
        while b"\0" not in self._left:
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise ConnectionError("the browser ended")
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)


@contextmanager
def browser(url: str, profile: Path) -> Iterator[Browser]:
    """Chromium with one page, which draws without a graphics card."""
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        "--window-size=1280,800", "--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    ]  # fmt: skip
    (read_commands, commands), (answers, write_answers) = os.pipe(), os.pipe()
    high = [os.dup2(fd, 200 + index, inheritable=False) for index, fd in enumerate((read_commands, write_answers))]

    def place() -> None:
        os.dup2(high[0], COMMANDS_FD)
        os.dup2(high[1], ANSWERS_FD)

    process = subprocess.Popen(
        command, pass_fds=(COMMANDS_FD, ANSWERS_FD), preexec_fn=place,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for fd in (read_commands, write_answers, *high):
        os.close(fd)
    try:
        yield Browser(commands, answers, url)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
