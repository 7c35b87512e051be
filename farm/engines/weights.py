"""Weights on their way to an engine: what has changed, and the files they travel in.

They travel as safetensors through a folder in memory (``/dev/shm`` where there is one), in the format of Hugging Face,
because every engine reads that through a documented interface of its own, on any device and over any number of
processes, and nothing is unpickled. A model of 135 million parameters takes 0.6 seconds, most of it reading.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from farm.base.errors import UserError
from farm.hardware import adapters
from farm.roles.protocols import Writer
from farm.storage.store import address, home

PREFIX = "farm-weights-"


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


def fingerprint(tensors: list[torch.nn.Parameter]) -> str:
    """What tells these values from others, in any process: a digest of the tensors' sums."""
    return address(_sums(tensors)).hex()


class Folder:
    """A folder in memory for hand-overs, removed with the object or at the end of the process.

    A process that is killed removes nothing, and what it leaves would fill the memory. So each folder of this machine
    has a locked file in it, and whoever makes one removes those whose lock is free.

    Args:
        root: where it is made; by default the memory of this machine, where it has ``room``, or its folder for
            temporary files. (A container's memory folder often has 64 MB.)
        room: bytes that it will have to hold.

    Raises:
        UserError: there is no room in either.
    """

    def __init__(self, root: Path | None = None, room: int = 0) -> None:
        own = root is None
        if root is None:
            root = _with_room(room)
        root.mkdir(parents=True, exist_ok=True)
        if own:
            _remove_orphans(root)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        lock = (self.path / "lock.new").open("w")
        with contextlib.suppress(OSError):  # a shared folder's file system may know no locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(self.path / "lock.new", self.path / "lock")  # never there without its owner's hold
        self._end = weakref.finalize(self, _end, self.path, lock)

    def close(self) -> None:
        self._end()


def _with_room(room: int) -> Path:
    memory, disk = Path("/dev/shm"), Path(tempfile.gettempdir())  # noqa: S108 (a folder with a drawn name is made there)
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > room:
        return memory
    if (free := shutil.disk_usage(disk).free) <= room:
        raise UserError(
            f"the weights take {room / 1e9:.1f} GB on their way to the engine, and neither {memory} nor {disk} "
            f"({free / 1e9:.1f} GB free) has room; set TMPDIR to a folder that has, or run a container with --shm-size"
        )
    return disk


def size_of(model: Any, dtype: torch.dtype | None = None) -> int:
    """Bytes of the files that :func:`write_model` writes, about: a tied embedding is written twice."""
    named = model.named_parameters(remove_duplicate=False)
    return sum(p.numel() * (dtype or p.dtype).itemsize for name, p in named if ".lora_" not in name)


def _end(path: Path, lock: Any) -> None:
    shutil.rmtree(path, ignore_errors=True)
    lock.close()


def _remove_orphans(root: Path) -> None:
    """The folders below ``root`` whose processes are gone."""
    for lock in root.glob(f"{PREFIX}*/lock"):
        with contextlib.suppress(OSError), lock.open("a") as file:  # another user's, or held
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)


class Held:
    """Which weights a server holds, as all processes of this user know it, so that runs at one server do not meet.

    A process that samples holds a shared lock, and one that hands weights over an exclusive one: no responses come from
    the weights of another process, and processes that train together hand the same weights over once.

    Args:
        server: what names it, such as its address.
    """

    def __init__(self, server: str) -> None:
        self._path = home() / "servers" / address(server).hex()
        self._path.parent.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def using(self, weights: str, anew: bool, hand_over: Callable[[], None]) -> Iterator[bool]:
        """Sample within: the server holds ``weights`` (a :func:`fingerprint`). Gives whether they were handed over,
        which they are where it is not known to hold them, or ``anew``."""
        handed_over = False
        with self._path.open("a+") as file:
            while True:
                fcntl.flock(file, fcntl.LOCK_SH)
                if not anew and _read(file) == weights:
                    break
                fcntl.flock(file, fcntl.LOCK_EX)
                if anew or _read(file) != weights:
                    _write(file, "")  # unknown while the hand-over is under way, and where it fails
                    hand_over()
                    _write(file, weights)
                    anew, handed_over = False, True
            yield handed_over


def _read(file: Any) -> str:
    file.seek(0)
    return str(file.read())


def _write(file: Any, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def base_parameters(model: Any) -> list[torch.nn.Parameter]:
    """The model's parameters without those of adapters."""
    return [p for name, p in model.named_parameters() if ".lora_" not in name]


def type_of(writer: Writer) -> torch.dtype:
    """In which an engine computes for a policy, and is given its weights: half the bytes where that is 16 bits."""
    held: torch.dtype = next(writer.model.parameters()).dtype
    return held if writer.compute_dtype is None else getattr(torch, writer.compute_dtype)


def write_model(model: Any, folder: Path, merge: bool, dtype: torch.dtype | None = None) -> None:
    """The model's config and weights, with adapters merged or left out, in ``dtype`` or as they are held."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    dtype = dtype or next(model.parameters()).dtype
    # vLLM's reload_weights does not follow a tie between input and output embedding: so none is declared.
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "tie_word_embeddings": False}
    config |= {"dtype": str(dtype).removeprefix("torch.")}
    type(model.config)(**config).to_json_file(folder / "config.json", use_diff=False)
    # Old names of the same tensors must not survive beside the new file: it is written whole, then renamed.
    tensors = adapters.merging(model) if merge else adapters.without(model).items()
    save_file(_as_filed(tensors, dtype), folder / "model.safetensors.new")
    os.replace(folder / "model.safetensors.new", folder / "model.safetensors")


def _as_filed(tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Each in the processor's memory before the next one is asked for, in ``dtype``. Where two names share memory the
    second has a copy of its own: a file holds every name by itself."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors:
        own = (tensor.to(dtype) if tensor.is_floating_point() else tensor).cpu().contiguous()
        out[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return out
