"""One stage after another in a process of farm.scheduling.local: ``python -m farm.scheduling.worker FD PID``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

from farm.base import progress
from farm.base.errors import show_alarms_plainly
from farm.scheduling.perform import perform


def main() -> None:
    """Serve until the other side is gone."""
    link, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides
    show_alarms_plainly()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    with progress.quiet():
        while True:
            try:
                root, node, again, limits = link.recv()
            except EOFError:
                return
            link.send(perform(root, node, again, limits))


def _follow(parent: int) -> None:
    """End when the parent has ended, even in the middle of a stage: no process waits for it any more."""
    while os.getppid() == parent:
        time.sleep(0.3)
    os._exit(1)


if __name__ == "__main__":
    main()
