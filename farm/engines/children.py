"""Processes that a library starts for us end with us, even where we are killed.

vLLM's do not notice the death of the program that started them, and would keep the accelerator's memory for good.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
from collections.abc import Callable, Iterator

WAIT = 'read nothing; kill "$@" && sleep 5 && kill -9 "$@"'
"""Its input ends when the process that holds the other side ends, however that happens."""


@contextlib.contextmanager
def that_end_with_us() -> Iterator[Callable[[], None]]:
    """The processes that :mod:`multiprocessing` starts within. Gives what is to be called when they have ended, or will
    be ended by others."""
    before = {process.pid for process in multiprocessing.active_children()}
    watch: list[subprocess.Popen[bytes]] = []

    def over() -> None:
        for process in watch:
            process.kill()  # before its input ends, which it would take for our death
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        watch.clear()

    yield over
    started = [str(p.pid) for p in multiprocessing.active_children() if p.pid not in before]
    if started:
        command = ["/bin/sh", "-c", WAIT, "sh", *started]
        quiet = subprocess.DEVNULL
        watch.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)  # noqa: S603
        )
