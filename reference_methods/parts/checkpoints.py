"""Checkpoints in the middle of a training: stop at any moment, start again, and end where an uninterrupted run ends.

Every draw and every batch is keyed (farm.base.rng), so a training is known by few things: the parameters that train,
the moments of their optimizer, the number of the next step, and the lines logged so far. They are written to
``<folder>/<purpose>/step-<n>``, as safetensors and JSON alone, beside their place and renamed when complete; the older
ones go once a newer one stands. Whoever gave the folder removes it when the training is over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from farm.base.errors import UserError
from farm.hardware import processes
from farm.roles.protocols import Learning, Policy, Samples
from farm.tables.records import USAGE_COLUMNS
from reference_methods.parts.optimization import Metrics, Optimizer

TENSORS, FACTS = "training.safetensors", "training.json"
FORMAT = 2
"""of checkpoints: those of another one are refused"""


class Stateful(Protocol):
    """Something besides networks and optimizer that a training remembers, such as a moving average."""

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name; the names are the same at every call."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on as if ``state`` had just been given by :meth:`state_dict`."""


class StateDicts:
    """Several stateful things, each by its name; those without a state may be among them."""

    def __init__(self, parts: Mapping[str, object]) -> None:
        self._parts: dict[str, Any] = {name: part for name, part in parts.items() if hasattr(part, "load_state_dict")}

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value for name, part in self._parts.items() for key, value in part.state_dict().items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, part in self._parts.items():
            start = len(name) + 1
            part.load_state_dict({key[start:]: value for key, value in state.items() if key.startswith(f"{name}/")})


class CurrentPolicy:
    """A policy whose trained parameters a checkpoint holds; another of the same shape may take its place."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def state_dict(self) -> dict[str, Tensor]:
        return {str(i): parameter.detach() for i, parameter in enumerate(self._trained())}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for i, parameter in enumerate(self._trained()):
            parameter.copy_(state[str(i)])

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.policy.parameters() if parameter.requires_grad]


def packed(samples: Samples) -> dict[str, Tensor]:
    """Samples as tensors, which :func:`unpacked` reads back without loss: tokens one after the other, texts as JSON."""
    words = json.dumps([samples.prompts, samples.outputs, samples.finish_reason]).encode()
    out = {"texts": torch.from_numpy(np.frombuffer(words, np.uint8).copy())}
    kinds: dict[str, tuple[list[Any], Any]] = {
        "prompt": (samples.prompt_tokens, np.int32),
        "response": (samples.response_tokens, np.int32),
        "log_probabilities": (samples.log_probabilities, np.float32),
    }
    for name, (rows, kind) in kinds.items():
        out[name] = torch.from_numpy(np.concatenate([np.zeros(0, kind), *rows]).astype(kind))
        out[f"{name}_lengths"] = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    return out


def unpacked(tensors: dict[str, Tensor]) -> Samples:
    """What :func:`packed` was given."""
    prompts, outputs, reasons = json.loads(tensors["texts"].numpy().tobytes())

    def rows(name: str) -> list[Any]:
        cuts = tensors[f"{name}_lengths"].numpy().cumsum()[:-1]
        return [row.copy() for row in np.split(tensors[name].numpy(), cuts)] if prompts else []

    prompts = [prompt if isinstance(prompt, str) else tuple(prompt) for prompt in prompts]  # JSON has lists
    return Samples(prompts, outputs, rows("prompt"), rows("response"), rows("log_probabilities"), reasons)


def log_once(log: Callable[[Metrics], None], metrics: Metrics) -> None:
    """Log, in the first process alone. Whoever reads the log may stop the training, in all processes: all must ask."""
    stop: UserError | None = None
    if processes.is_first():
        try:
            log(metrics)
        except UserError as error:
            stop = error
    stopped = processes.from_first(str(stop or "").encode())
    if stop is not None:
        raise stop
    if stopped:
        raise UserError(stopped.decode())


def following(learning: Learning, lines: int) -> Learning:
    """The same learning for a training whose lines of the log follow those of an earlier one of the same method."""

    def log(metrics: Metrics) -> None:
        learning.log({**metrics, "step": metrics["step"] + lines})

    return replace(learning, log=log, steps=lambda total: learning.steps(lines + total))


class Checkpoints:
    """What a training leaves behind now and then, and finds again.

    Args:
        learning: gives the folder (none: nothing is kept) and the log.
        purpose: which training of the method this is; the name of its folder.
        optimizer: holds the networks and the moments.
        minutes: between two checkpoints.
        fingerprint: whatever must be the same for a checkpoint to be gone on from, such as the settings.
        state: what else there is to remember.
    """

    def __init__(
        self,
        learning: Learning,
        purpose: str,
        optimizer: Optimizer,
        minutes: float,
        fingerprint: Any,
        state: Stateful,
    ) -> None:
        self._learning, self._optimizer, self._state = learning, optimizer, state
        self._seconds, self._last, self._lines = 60 * minutes, time.monotonic(), list[Metrics]()
        self._mark = "" if learning.checkpoints is None else _mark(purpose, learning, fingerprint)
        self._folder = None if learning.checkpoints is None else learning.checkpoints / _safe(purpose)

    def restore(self) -> int:
        """Take up the last checkpoint, logging its lines again, and return the number of the next step (0 if none).

        Raises:
            UserError: it belongs to another training, or cannot be read.
        """
        found = None if self._folder is None else _newest(self._folder)
        if found is None:
            return 0
        facts, tensors = _read(found)
        if facts["fingerprint"] != self._mark:
            raise UserError(f"{found}: this checkpoint is of another training; delete the folder to start afresh")
        state = {name[len("state/") :]: tensor for name, tensor in tensors.items() if name.startswith("state/")}
        self._optimizer.take({name: tensor for name, tensor in tensors.items() if not name.startswith("state/")})
        self._optimizer.steps_taken = int(facts["updates"])
        self._state.load_state_dict(state)
        for line in facts["lines"]:
            self.log(line)
        return int(facts["step"])

    def log(self, metrics: Metrics) -> None:
        """Log the next line, which its number (``step``) opens, and remember it; see :func:`log_once`."""
        log_once(self._add, metrics)

    def _add(self, metrics: Metrics) -> None:
        line = {"step": len(self._lines), **{name: value for name, value in metrics.items() if name != "step"}}
        self._lines.append(line)
        self._learning.log(line)

    def part(self, name: str) -> Learning:
        """The same learning for a training inside this one: its lines are lines of this one, its checkpoints go when
        this one's next stands."""
        place = None if self._folder is None else self._folder / f"part-{_safe(name)}"
        return replace(self._learning, log=self._add, steps=lambda total: None, checkpoints=place)

    def after(self, step: int) -> None:
        """A step is over: save if it is time to."""
        if self._folder is None:
            return
        due = time.monotonic() - self._last >= self._seconds
        if self._optimizer.sharded:  # then all take part in the writing, when the first one's clock says so
            due = processes.from_first(b"due" if due else b"") == b"due"
        if due:
            self.save(step + 1)

    def save(self, next_step: int) -> None:
        """Write a checkpoint from which the training goes on with ``next_step``."""
        self._last = time.monotonic()
        if self._folder is None or not (processes.is_first() or self._optimizer.sharded):
            return
        parameters = self._optimizer.tensors()
        if not processes.is_first():
            return
        from safetensors.torch import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=self._folder))
        try:
            state = {f"state/{name}": tensor for name, tensor in self._state.state_dict().items()}
            tensors = {**parameters, **state}
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary / TENSORS
            )
            facts = {
                "fingerprint": self._mark,
                "step": next_step,
                "updates": self._optimizer.steps_taken,
                "lines": self._lines,
            }
            (temporary / FACTS).write_text(json.dumps(facts))
            complete = self._folder / f"step-{next_step:09d}"
            if not complete.exists():
                os.rename(temporary, complete)
            for other in self._folder.iterdir():
                if other.name.startswith("part-") or (other.name.startswith("step-") and other.name < complete.name):
                    shutil.rmtree(other, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _mark(purpose: str, learning: Learning, fingerprint: Any) -> str:
    """A digest of what a training starts from: its settings, the feedback, and the networks it is given, of which some
    numbers of each parameter are looked at."""
    digest = hashlib.blake2b(repr((FORMAT, purpose, learning.seed, fingerprint)).encode(), digest_size=16)
    for kind, table in sorted(learning.feedback.items()):
        said = [c for c in table.columns if c not in USAGE_COLUMNS and "tokens" not in c and "log_prob" not in c]
        digest.update(f"{kind}{table[said].to_json(orient='values')}".encode())
    for network in (learning.policy, *(model for _, model in sorted(learning.models.items()))):
        if hasattr(network, "parameters"):
            for parameter in network.parameters():
                some = parameter.detach().reshape(-1)[:: max(1, parameter.numel() // 16)]
                digest.update(some.cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _newest(folder: Path) -> Path | None:
    return max((path for path in folder.glob("step-*") if (path / FACTS).is_file()), default=None)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return json.loads((folder / FACTS).read_text()), load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: this checkpoint cannot be read ({error}); delete it to start afresh") from error
