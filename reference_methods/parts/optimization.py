"""The optimizer of every method: AdamW with a schedule, a clip of the gradient's norm, and an alarm.

Where several processes train together (``processes``), each accumulates its share of the gradient, and a step adds the
shares up first: the norm that is clipped, and the loss that is looked at, are those of the whole minibatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from farm import memory, processes
from farm.errors import UserError
from reference_methods.parts.aggregation import Totals
from reference_methods.parts.batches import Lengths, Rows, micro_batches

Schedule = Literal["constant", "linear", "cosine"]
Metrics = dict[str, float]
Loss = Callable[[Rows, Totals], tuple[Tensor, dict[str, Tensor]]]
"""Given the rows of a micro-batch and the totals of its minibatch: the micro-batch's share of the loss, and its share
of each metric. Shares add up, so a mean over the minibatch is a sum here divided by ``totals``."""


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
    return 1.0


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
        self._groups = [[p for p in parameters if p.requires_grad] for parameters, _ in networks]
        self._peaks = [peak for _, peak in networks]
        self._adam = torch.optim.AdamW(
            [{"params": group, "lr": peak} for group, peak in zip(self._groups, self._peaks, strict=True)],
            eps=epsilon,
            weight_decay=0.0,
            fused=True,
        )
        self._steps, self._schedule, self._warm_up = steps, schedule, warm_up
        self._max_norm, self._purpose = max_gradient_norm, purpose
        self.steps_taken = 0

    def step(self, loss: float) -> Metrics:
        """Apply the gradients accumulated by ``backward`` and clear them; the metrics are those of the first network.

        Raises:
            UserError: the loss or a gradient is not finite; nothing has been applied.
        """
        for parameters in self._groups:
            processes.add_gradients(parameters)
        norms = [float(clip_grad_norm_(group, self._max_norm)) for group in self._groups]
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
        self.steps_taken += 1
        return {"learning_rate": self._peaks[0] * share, "gradient_norm": norms[0]}

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and the moments, by name: with ``steps_taken`` all that the next step depends on."""
        out = {}
        for g, group in enumerate(self._groups):
            for i, parameter in enumerate(group):
                out[f"{g}/{i}/value"] = parameter.detach()
                for name, moment in self._adam.state.get(parameter, {}).items():
                    out[f"{g}/{i}/{name}"] = moment
        return out

    @torch.no_grad()
    def take(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave.

        Raises:
            UserError: they are of networks of another shape.
        """
        for g, group in enumerate(self._groups):
            for i, parameter in enumerate(group):
                own = f"{g}/{i}/"
                found = {name[len(own) :]: tensor for name, tensor in tensors.items() if name.startswith(own)}
                value = found.pop("value", None)
                if value is None or value.shape != parameter.shape:
                    raise UserError(f"{self._purpose}: the checkpoint is of another model; delete it to start afresh")
                parameter.copy_(value)
                self._adam.state[parameter] = {
                    name: moment.clone() if name == "step" else moment.to(parameter.device, copy=True)
                    for name, moment in found.items()
                }


def accumulate(loss: Loss, rows: Rows, totals: Totals, lengths: Lengths, micro_batch_tokens: int) -> Metrics:
    """Add the gradient of a minibatch's loss to the parameters, and return the loss and the other metrics.

    Of several processes each adds the gradient of its share of the rows; the metrics are those of all rows.

    Raises:
        UserError: the memory does not suffice for a micro-batch.
    """
    metrics: Metrics = {"loss": 0.0}
    for part in micro_batches(processes.share(rows), lengths, micro_batch_tokens):
        with memory.explained(f"a micro-batch of {len(part)} rows of at most {int(lengths[part].max())} tokens"):
            value, shares = loss(part, totals)
            value.backward()  # type: ignore[no-untyped-call]
        for name, share in {"loss": value, **shares}.items():
            metrics[name] = metrics.get(name, 0.0) + float(share.detach())
    return processes.add_metrics(metrics, processes.names_of(metrics))
