"""The optimizer of every method: AdamW with a schedule, a clip of the gradient's norm, and an alarm.

Where several processes train together (``processes``), each accumulates its share of the gradient, and a step adds the
shares up first: the norm that is clipped, and the loss that is looked at, are those of the whole minibatch. Of
parameters that are spread over the processes (``farm.policies.sharding``) each steps its own part, and holds its
moments alone.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from farm.base.errors import UserError
from farm.hardware import memory, processes
from reference_methods.parts.batches import Lengths, Rows, micro_batches

Schedule = Literal["constant", "linear", "cosine"]
Metrics = dict[str, float]
Shares = Sequence[tuple[str, Tensor]]
"""the name of a metric and a part's share of it, on the device that computed it; shares of one name add up"""


def rate(schedule: Schedule, step: int, steps: int, warm_up: float) -> float:
    """The learning rate of step 0 .. steps - 1 as a share of its peak.

    Rises linearly over the first ``warm_up`` share of the steps; then constant, or falling to 0 linearly or along half
    a cosine, so that the step after the last would have 0.
    """
    rising = math.ceil(warm_up * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(1, steps - rising)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "constant":
        return 1.0
    raise ValueError(f"unknown schedule {schedule!r}")


class Optimizer:
    """AdamW without weight decay over one or more networks, each with its own peak rate and its own gradient clip."""

    def __init__(
        self,
        networks: Sequence[tuple[Iterable[torch.nn.Parameter], float]],
        *,
        steps: int,
        schedule: Schedule,
        warm_up: float,
        max_gradient_norm: float,
        purpose: str,
        epsilon: float = 1e-8,
    ) -> None:
        """``networks``: (parameters, peak learning rate); ``steps``: optimizer steps in all."""
        self._given = [[p for p in parameters if p.requires_grad] for parameters, _ in networks]
        self._groups = [[s.own_part(p) if (s := _spread(p)) else p for p in given] for given in self._given]
        self._spreads = list({id(s): s for group in self._given for s in map(_spread, group) if s}.values())
        self._peaks = [peak for _, peak in networks]
        self._adam = torch.optim.AdamW(
            [{"params": group, "lr": peak} for group, peak in zip(self._groups, self._peaks, strict=True)]
            or [{"params": []}],
            eps=epsilon,
            weight_decay=0.0,
            fused=True,
        )
        self._steps, self._schedule, self._warm_up = steps, schedule, warm_up
        self._max_norm, self._purpose = max_gradient_norm, purpose
        self.steps_taken = 0

    def step(self, shares: Shares = (), check: Callable[[Metrics], None] | None = None) -> Metrics:
        """Apply the gradients accumulated by ``backward`` and clear them.

        Args:
            shares: of the loss and the other metrics; they are read together with the gradients' norms, once.
            check: is given the metrics before anything is applied.

        Returns:
            the metrics, of all processes' rows, with the learning rate and the gradient's norm of the first network.

        Raises:
            UserError: the loss or a gradient is not finite; nothing has been applied.
        """
        for spread in self._spreads:
            spread.drop()
        each = [self._gradients(given, own) for given, own in zip(self._given, self._groups, strict=True)]
        values = _read([*each, *(share for _, share in shares)])
        norms = values[: len(each)]
        metrics: Metrics = {"loss": 0.0}
        for (name, _), value in zip(shares, values[len(each) :], strict=True):
            metrics[name] = metrics.get(name, 0.0) + value
        metrics = processes.add_metrics(metrics, processes.names_of(metrics))
        if check is not None:
            check(metrics)
        loss = metrics["loss"]
        if not all(math.isfinite(x) for x in (loss, *norms)):
            raise UserError(
                f"{self._purpose}: the loss or its gradient is not finite at update {self.steps_taken} (loss {loss:g}, "
                f"gradient norms {norms}); lower the learning rate, now at most {max(self._peaks):g}"
            )
        share = rate(self._schedule, self.steps_taken, self._steps, self._warm_up)
        for group, peak in zip(self._adam.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for parameter in itertools.chain(*self._given):
            parameter.grad = None
        self.steps_taken += 1
        return {**metrics, "learning_rate": self._peaks[0] * share, "gradient_norm": norms[0]}

    def snapshot(self) -> Any:
        """The parameters (of what is spread, this process's part), the moments and the count."""
        values = [part.detach().clone() for part in itertools.chain(*self._groups)]
        return values, copy.deepcopy(self._adam.state_dict()), self.steps_taken

    @torch.no_grad()
    def restore(self, snapshot: Any) -> None:
        for spread in self._spreads:
            spread.drop()
        values, state, self.steps_taken = snapshot
        for part, value in zip(itertools.chain(*self._groups), values, strict=True):
            part.copy_(value)
        self._adam.load_state_dict(copy.deepcopy(state))

    @property
    def sharded(self) -> bool:
        """Whether parameters are spread over processes, which then must make equally many passes."""
        return bool(self._spreads)

    def _gradients(self, given: list[torch.nn.Parameter], own: list[torch.nn.Parameter]) -> Tensor:
        """Add the processes' gradients up, clip them, and return their norm before."""
        if all(part is parameter for parameter, part in zip(given, own, strict=True)):
            processes.add_gradients(own)
            return clip_grad_norm_(own, self._max_norm)
        processes.add_gradients([part for parameter, part in zip(given, own, strict=True) if part is parameter])
        squares = torch.zeros(2, dtype=torch.float64, device=own[0].device)  # of spread and of whole parameters
        for parameter, part in zip(given, own, strict=True):
            if part is not parameter:
                part.grad = None if parameter.grad is None else parameter.grad.to_local()  # type: ignore[attr-defined]
            if part.grad is not None:
                squares[int(part is parameter)] += torch.linalg.vector_norm(part.grad, dtype=torch.float64) ** 2
        norm = (processes.all_reduce_sum(squares[:1]) + squares[1:]).sqrt()[0]
        factor = (self._max_norm / (norm + 1e-6)).clamp(max=1.0)
        for part in own:
            if part.grad is not None:
                part.grad.mul_(factor.to(part.grad))
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and the moments, by name: with ``steps_taken`` all that the next step depends on. What is
        spread over processes is gathered, in which all must take part; the first has it, in the processor's memory."""
        out = {}
        for g, (given, group) in enumerate(zip(self._given, self._groups, strict=True)):
            for i, (parameter, part) in enumerate(zip(given, group, strict=True)):
                spread = _spread(parameter)
                for name, tensor in {"value": part.detach(), **self._adam.state.get(part, {})}.items():
                    if spread is not None and name != "step":
                        tensor = spread.gathered(tensor, parameter)
                        if not processes.is_first():
                            continue
                        tensor = tensor.cpu()
                    out[f"{g}/{i}/{name}"] = tensor
        return out

    @torch.no_grad()
    def take(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave.

        Raises:
            UserError: they are of networks of another shape.
        """
        for spread in self._spreads:
            spread.drop()
        for g, (given, group) in enumerate(zip(self._given, self._groups, strict=True)):
            for i, (parameter, part) in enumerate(zip(given, group, strict=True)):
                own = f"{g}/{i}/"
                found = {name[len(own) :]: tensor for name, tensor in tensors.items() if name.startswith(own)}
                value = found.pop("value", None)
                if value is None or value.shape != parameter.shape:
                    raise UserError(f"{self._purpose}: the checkpoint is of another model; delete it to start afresh")
                spread = _spread(parameter)
                if spread is not None:
                    found = {n: t if n == "step" else spread.part_of(t, parameter) for n, t in found.items()}
                    value = spread.part_of(value, parameter)
                part.copy_(value)
                self._adam.state[part] = {name: moment.to(part.device, copy=True) for name, moment in found.items()}


def _read(scalars: Sequence[Tensor]) -> list[float]:
    """The numbers, read all at once: an accelerator makes the program wait for each time that it is asked."""
    if not scalars:
        return []
    found: list[float] = torch.stack([scalar.to(scalars[0].device) for scalar in scalars]).tolist()
    return found


def _spread(parameter: Tensor) -> Any:
    """The ``farm.policies.sharding.Spread`` that a parameter belongs to; None where it is whole."""
    return getattr(parameter, "spread", None)


def is_sharded(network: Any) -> bool:
    """Whether what trains in a policy or a scorer is spread over processes."""
    return any(_spread(parameter) is not None for parameter in network.parameters())


def accumulate(
    loss: Callable[[Rows], tuple[Tensor, dict[str, Tensor]]],
    rows: Rows,
    lengths: Lengths,
    micro_batch_tokens: int,
    equal_passes: bool = False,
    prompts: Rows | None = None,
) -> Shares:
    """Add the gradient of a minibatch's loss to the parameters, and return the parts' shares of the loss and the other
    metrics, not yet read.

    Of several processes each adds the gradient of its share of the rows. With ``equal_passes`` every process makes
    equally many passes, some of them for nothing. With ``prompts``, a number for each row's prompt, rows with the same
    one are computed together where they can be.

    Raises:
        UserError: out of memory during a micro-batch.
    """
    shares = list[tuple[str, Tensor]]()
    parts = micro_batches(processes.share(rows), lengths, micro_batch_tokens, prompts)
    passes = processes.max_over_ranks(len(parts)) if equal_passes else len(parts)

    def add() -> None:
        for number, part in enumerate(parts + [rows[:1]] * (passes - len(parts))):
            with memory.explained(f"a micro-batch of {len(part)} rows of at most {int(lengths[part].max())} tokens"):
                value, others = loss(part)
                if number >= len(parts):
                    (0 * value).backward()  # type: ignore[no-untyped-call]
                    continue
                value.backward()  # type: ignore[no-untyped-call]
            shares.extend((name, share.detach()) for name, share in {"loss": value, **others}.items())

    processes.raise_together(add)
    return shares
