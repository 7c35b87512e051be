"""What differs between operating systems: asked here, so that nothing else need know on which one it runs.

Linux and macOS are supported. Runs lock folders and send signals in ways that Windows has not, so it is refused with
what to do, before anything is begun; within WSL it is Linux.
"""

from __future__ import annotations

import os
import sys

from farm.base.errors import UserError


def check() -> None:
    """Raises UserError on Windows."""
    if sys.platform == "win32":
        raise UserError(
            "Windows has no locks on folders, which runs need: install WSL (`wsl --install`) and use it there"
        )


def peak_memory() -> int:
    """The most memory that this process has had at a time, bytes."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes on macOS, KiB on Linux


def cores() -> int:
    """How many processors this process may use; where the system does not say, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
