"""What a process that makes stages for this one must know: where modules lie, which addresses and files are meant, and
which process it belongs to. And which GPUs there are to share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import takewhile
from pathlib import Path

from farm.base.addresses import checked
from farm.base.errors import OptionError

ADDRESSES = ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "HF_ENDPOINT")
CARDS = Path("/proc/driver/nvidia/gpus")
"""where the kernel's driver names each GPU"""
PLACES = ("FARM_PRICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")


def search_path() -> str:
    """Where this process finds modules, for PYTHONPATH.

    The current folder is no part of it unless this process looks there too, as a notebook does, and then it comes last:
    a file there must not take the place of an installed package.
    """
    here = [os.getcwd()] if "" in sys.path else []
    return os.pathsep.join([*(path for path in sys.path if path), *here])


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; asked without importing torch."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [d for d in takewhile(lambda d: d != "-1", visible.split(",")) if d]  # CUDA looks no further than -1
    return [str(i) for i in range(len(list(CARDS.iterdir())) if CARDS.is_dir() else _listed())]


def _listed() -> int:
    """How many GPUs NVIDIA's own command lists, where the kernel names none (Windows' subsystem for Linux)."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return 0
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def end_with(parent: int) -> None:
    """End this process when its parent has ended, even in the middle of a stage: no process waits for it any more."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def settings() -> dict[str, str]:
    """The variables of this process that say which server or file is meant, as they are set here; never a key.

    Raises:
        UserError: for an address that holds a password, which would stand in the logs of the other side.
    """
    found = {name: os.environ[name] for name in (*ADDRESSES, *PLACES) if os.environ.get(name)}
    for name in ADDRESSES:
        try:
            checked(found.get(name, "https://unset"), name)
        except ValueError as error:
            raise OptionError(f"`engine` ray: {error}") from None
    for name in ("FARM_PRICES", "HF_HOME", "HF_HUB_CACHE"):
        if name in found:
            found[name] = os.path.abspath(os.path.expanduser(found[name]))
    return found
