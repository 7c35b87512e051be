"""Whether a launcher (torchrun, accelerate launch) has started several processes; asked without importing torch."""

from __future__ import annotations

import os


def several() -> bool:
    """Whether there are others beside this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether this process is one of the others, and not the first."""
    return several() and int(os.environ.get("RANK", "0")) > 0
