"""Commands as processes of their own, forked from a program that has imported everything (`tests/preloaded.py`).

What is run is the installed script, in a fresh process with its own environment, place and signals; only the imports
are not repeated, which take longer than most commands. Where importing is the subject, a test uses `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

FARM = Path(sys.executable).parent / "farm"


class Started:
    """A command that runs, as `subprocess.Popen` has it."""

    def __init__(self, words: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None):
        self.args = [str(word) for word in words]
        self.returncode: int | None = None
        self._texts: tuple[str, str] | None = None
        place = {"cwd": str(cwd or Path.cwd()), "environment": dict(os.environ if env is None else env)}
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when the command has ended
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._status, status = socket.socketpair()
        with tempfile.TemporaryFile("w+") as request, status:
            json.dump({"words": self.args, **place}, request)
            request.seek(0)
            files = [request.fileno(), self._out.fileno(), self._errors.fileno(), status.fileno()]
            socket.send_fds(_preloaded(), [b"."], files)
        self._lines = self._status.makefile("r")
        self.pid = int(self._lines.readline())

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._lines.readline())
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """(standard output, standard error) when it has ended; one that does not end in time is killed."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._texts = self._texts or self._read()
        return self._texts

    def _read(self) -> tuple[str, str]:
        texts = []
        for file in (self._out, self._errors):
            file.seek(0)
            texts.append(file.read())
            file.close()
        self._lines.close()
        self._status.close()
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(*words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Started:
    """`farm` with these words, in a folder and an environment."""
    return Started([FARM, *words], cwd, env)


def run(
    *words: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`farm` with these words, to its end."""
    return ended(start(*words, cwd=cwd, env=env), timeout)


def group(count: int, script: Path, *words: str | Path) -> None:
    """A script of the tests in several processes of one group (`torch.distributed`), to the end of all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "CUDA_VISIBLE_DEVICES": ""}
    sizes = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    processes = [
        Started([script, *words], env={**os.environ, **meeting, **sizes, "RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(count)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors[-3000:]


def ended(process: Started, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    out, errors = process.communicate(timeout)
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@functools.cache
def _preloaded() -> socket.socket:
    """A socket of the program that forks; one for each process that runs tests."""
    ours, its = socket.socketpair()
    with its:
        program = Path(__file__).with_name("preloaded.py")
        path = os.pathsep.join(filter(None, [str(program.parents[1]), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen([sys.executable, "-P", program], stdin=its, env={**os.environ, "PYTHONPATH": path})
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours
