"""Weights on their way to an engine: what has changed, and the files they travel in.

They travel as safetensors through a folder in memory (``/dev/shm`` where there is one), in the format of Hugging Face,
because every engine reads that through a documented interface of its own, on any device and over any number of
processes, and nothing is unpickled. A model of 135 million parameters takes 0.6 seconds, most of it reading.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch

from farm import adapters


class Stamp:
    """Which tensors an engine was last given, and whether these are still what they were.

    A change in place counts up a tensor's version. Fused optimizers do not, so the sums of the tensors, which take a
    fraction of a second, are compared besides.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[weakref.ref[torch.Tensor], int]] = []
        self._sums: list[float] = []

    def is_current(self, tensors: list[torch.nn.Parameter]) -> bool:
        known = len(self._seen) == len(tensors) and all(
            seen() is tensor and version == tensor._version
            for (seen, version), tensor in zip(self._seen, tensors, strict=True)
        )
        return known and self._sums == _sums(tensors)

    def put(self, tensors: list[torch.nn.Parameter]) -> None:
        self._seen = [(weakref.ref(tensor), tensor._version) for tensor in tensors]
        self._sums = _sums(tensors)


@torch.no_grad()
def _sums(tensors: list[torch.nn.Parameter]) -> list[float]:
    if not tensors:
        return []
    plain, squares = zip(
        *((t.sum(dtype=torch.float64), torch.linalg.vector_norm(t, dtype=torch.float32).double()) for t in tensors),
        strict=True,
    )
    return [float(x) for x in torch.stack([*plain, *squares]).tolist()]


class Folder:
    """A folder in memory for hand-overs, removed with the object or at the end of the process.

    Args:
        root: where it is made; by default the memory of this machine, or its folder for temporary files.
    """

    def __init__(self, root: Path | None = None) -> None:
        memory = Path("/dev/shm")  # noqa: S108 (a folder of our own with a drawn name is made below it)
        if root is None and memory.is_dir() and os.access(memory, os.W_OK):
            root = memory
        if root is not None:
            root.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="farm-weights-", dir=root))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def close(self) -> None:
        self._end()


def base_parameters(model: Any) -> list[torch.nn.Parameter]:
    """The model's parameters without those of adapters."""
    return [p for name, p in model.named_parameters() if ".lora_" not in name]


def write_model(model: Any, folder: Path, merge: bool) -> None:
    """The model's config and weights, with adapters merged or left out."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    if merge or not adapters.inside(model):
        tensors = adapters.merged(model)
    else:
        tensors = {n.replace(".base_layer.", "."): t for n, t in adapters.tensors(model).items() if ".lora_" not in n}
    # vLLM's reload_weights does not follow a tie between input and output embedding: it is told of none.
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "tie_word_embeddings": False}
    config |= {"dtype": str(next(model.parameters()).dtype).removeprefix("torch.")}
    type(model.config)(**config).to_json_file(folder / "config.json", use_diff=False)
    # Old names of the same tensors must not survive beside the new file: it is written whole, then renamed.
    save_file({n: t.cpu().contiguous() for n, t in _unshared(tensors).items()}, folder / "model.safetensors.new")
    os.replace(folder / "model.safetensors.new", folder / "model.safetensors")


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same, where two names share memory the second with a copy of its own: a file holds every name by itself."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        out[name] = tensor.detach().clone() if tensor.data_ptr() in seen else tensor.detach()
        seen.add(tensor.data_ptr())
    return out
