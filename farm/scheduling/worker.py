"""One stage after another in a process of farm.scheduling.local: ``python -m farm.scheduling.worker FD PID``."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection

from farm.base import progress
from farm.base.errors import show_alarms_plainly
from farm.scheduling.environment import end_with
from farm.scheduling.together import made


def use(threads: int) -> None:
    """So many threads from now on: of torch, of what has yet to be imported, and of the processes of a group."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


def main() -> None:
    """Serve until the other side is gone."""
    link, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides
    show_alarms_plainly()
    end_with(parent)
    with progress.quiet():
        while True:
            try:
                root, node, again, limits, threads = link.recv()
            except EOFError:
                return
            use(threads)
            link.send(made(root, node, again, limits, quietly=True))


if __name__ == "__main__":
    main()
