"""Several processes that train together: each takes a share of every minibatch, and the gradients are added up.

A loss of the methods is a sum of shares, divided by counts of the *whole* minibatch. So the sum of the
processes' gradients is the gradient of the minibatch, whatever the number of processes: one process with a micro-batch
of eight, eight micro-batches of one, and two processes follow the same path up to rounding. Every process holds the
whole model and takes the same optimizer step, or holds and steps its part alone (``farm.policies.sharding``).

Started by ``accelerate launch`` or ``torchrun``; a single process pays nothing. Of ``farm run`` every process holds the
experiment, and they go through its stages in step (``farm.scheduling.in_step``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from io import BytesIO
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from farm.base.errors import UserError
from farm.hardware.device import device as device_of
from farm.roles.protocols import Samples
from farm.tables.turns import Prompt

Found = TypeVar("Found")


def start() -> None:
    """Join the group of processes that the launcher describes in the environment, unless that is done.

    On GPUs the group has a back end for tensors of either device: models that stay on the processor train together too.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        own = device_of()
        if own.type == "cuda":
            torch.cuda.set_device(own)
        # A process may wait long for another: while a stage is made that only the first one makes.
        dist.init_process_group(back_end(own), timeout=timedelta(days=7))


def end() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def back_end(own: torch.device) -> str:
    """What carries messages between processes whose models are on such a device."""
    return "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process writes the files and the log."""
    return rank() == 0


def share(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of a minibatch that this process computes; every row falls to exactly one."""
    return rows[rank() :: world_size()] if world_size() > 1 else rows


BUCKET_BYTES = 100 * 2**20
"""Gradients travel in messages of about this size, each of which is a copy for as long as it travels."""


def add_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over the processes. A process without rows has none: it counts as zero."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    kinds = {(p.dtype, p.device) for p in parameters}
    for dtype, device in sorted(kinds, key=str):  # messages of one kind each, in the same order everywhere
        bucket: list[Tensor] = []
        for gradient in (p.grad for p in parameters if p.grad is not None and (p.dtype, p.device) == (dtype, device)):
            if bucket and sum(g.nbytes for g in bucket) + gradient.nbytes > BUCKET_BYTES:
                _add_bucket(bucket)
                bucket = []
            bucket.append(gradient)
        _add_bucket(bucket)


def _add_bucket(gradients: list[Tensor]) -> None:
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def max_over_ranks(count: int) -> int:
    """The largest count of all processes."""
    if world_size() == 1:
        return count
    counts = torch.tensor([count], device=_device())
    dist.all_reduce(counts, op=dist.ReduceOp.MAX)
    return int(counts)


def add_metrics(metrics: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    """Shares of metrics summed over the processes; ``names`` are all there may be, in a fixed order."""
    if world_size() == 1:
        return metrics
    values = torch.tensor([metrics.get(name, 0.0) for name in names], dtype=torch.float64, device=_device())
    dist.all_reduce(values)
    return dict(zip(names, values.tolist(), strict=True))


def names_of(metrics: dict[str, float]) -> list[str]:
    """The names of the metrics of all processes: one without rows knows none of its own."""
    if world_size() == 1:
        return list(metrics)
    known = _gather_bytes("\n".join(metrics).encode())
    return list(dict.fromkeys(name for text in known for name in text.decode().split("\n") if name))


def by_prompt(prompts: Sequence[Prompt]) -> NDArray[np.int64]:
    """The positions of ``prompts`` that this process samples for: all occurrences of a prompt fall to one process, so
    the k-th is the k-th there too."""
    place: dict[Prompt, int] = {}
    group = np.array([place.setdefault(prompt, len(place)) for prompt in prompts], dtype=np.int64)
    return np.flatnonzero(group % world_size() == rank())


def all_samples(own: Samples, where: NDArray[np.int64], total: int) -> Samples:
    """The samples of all processes in the order of all prompts.

    Args:
        own: this process's samples.
        where: their positions among all, [len(own)].
        total: how many prompts there are in all.
    """
    if world_size() == 1:
        return own
    import json

    rows = {
        "where": where.tolist(),
        "columns": [
            own.prompts,
            own.outputs,
            [t.tolist() for t in own.prompt_tokens],
            [t.tolist() for t in own.response_tokens],
            [np.asarray(x, np.float64).tolist() for x in own.log_probabilities],  # a float32 survives text as float64
            own.finish_reason,
        ],
    }
    parts = [json.loads(text) for text in _gather_bytes(json.dumps(rows).encode())]
    places = np.concatenate([np.asarray(part["where"], np.int64) for part in parts])
    columns = [[x for part in parts for x in part["columns"][c]] for c in range(6)]
    order = np.argsort(places, kind="stable")
    if len(order) != total:
        raise RuntimeError(f"{total} responses were asked for and {len(order)} came from the processes")
    prompts, outputs, prompt_tokens, response_tokens, log_probabilities, reasons = (
        [column[i] for i in order] for column in columns
    )
    return Samples(
        [p if isinstance(p, str) else tuple(p) for p in prompts],  # JSON has lists
        outputs,
        [np.asarray(t, np.int32) for t in prompt_tokens],
        [np.asarray(t, np.int32) for t in response_tokens],
        [np.asarray(x, np.float32) for x in log_probabilities],
        reasons,
    )


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes, in place, on every process."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def from_first(message: bytes) -> bytes:
    """The first process's message, on every process."""
    return _gather_bytes(message if is_first() else b"")[0] if world_size() > 1 else message


def raise_together(compute: Callable[[], Found]) -> Found:
    """The result of ``compute``, of which each process may do another part; a `UserError` of one is raised in all.

    Otherwise the others would wait for a message that never comes, or take the next message for it. Every process must
    call this.
    """
    if world_size() == 1:
        return compute()
    error: UserError | None = None
    try:
        found = compute()
    except UserError as raised:
        error = raised
    messages = [message.decode() for message in _gather_bytes(str(error or "").encode()) if message]
    if error is not None:
        raise error
    if messages:
        raise UserError(messages[0])
    return found


def made_by_first(make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that the first process makes, on every process: what is asked, and paid for, is asked once.

    Its index counts from 0. A `UserError` of the first process is raised in all. Every process must call this.
    """
    if world_size() == 1:
        return make().reset_index(drop=True)
    table = raise_together(lambda: make().to_parquet(index=False) if is_first() else b"")
    return pd.read_parquet(BytesIO(from_first(table or b"")))


def wait() -> None:
    """Until every process is here."""
    if world_size() > 1:
        max_over_ranks(0)  # a barrier of nccl would need a GPU of every process


def _device() -> torch.device:
    """Where numbers and texts are put to travel: on the processor, unless the group was made for GPUs alone."""
    here = "cpu:" in dist.get_backend_config()
    return torch.device("cpu") if here else torch.device("cuda", torch.cuda.current_device())


def _gather_bytes(message: bytes) -> list[bytes]:
    """The messages of all processes, as bytes: nothing that crosses between processes is unpickled."""
    device = _device()
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=device)
    sizes[rank()] = len(message)
    dist.all_reduce(sizes)
    longest = int(sizes.max())
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(message)] = torch.frombuffer(bytearray(message or b"\0"), dtype=torch.uint8)[: len(message)].to(device)
    found = [torch.zeros_like(padded) for _ in range(world_size())]
    dist.all_gather(found, padded)
    return [bytes(part[:size].cpu().numpy()) for part, size in zip(found, sizes.tolist(), strict=True)]
