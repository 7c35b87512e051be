"""One stage after another in a process of farm.scheduling.local: ``python -m farm.scheduling.worker FD PID``."""

from __future__ import annotations

import signal
import sys
from multiprocessing.connection import Connection

from farm.base import progress
from farm.base.errors import show_alarms_plainly
from farm.scheduling.environment import end_with
from farm.scheduling.together import made


def main() -> None:
    """Serve until the other side is gone."""
    link, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides
    show_alarms_plainly()
    end_with(parent)
    with progress.quiet():
        while True:
            try:
                root, node, again, limits = link.recv()
            except EOFError:
                return
            link.send(made(root, node, again, limits, quietly=True))


if __name__ == "__main__":
    main()
