"""A scalar model on a language model's body: a reward model, or a value model with one number for each place.

The head is a linear map in float32, started with standard deviation 1/sqrt(d+1) and bias 0 (arXiv 2403.17031). A score
is read at the last real token, found by its index, and calibrated by a mean and a scale stored with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from farm.base import rng
from farm.hardware.models import load_causal_lm, save_causal_lm
from farm.policies import read_descriptor, write_descriptor
from farm.policies.batches import onto, prompt_lengths, response_mask, unflatten
from farm.policies.body import Body
from farm.policies.tabular import calibrated
from farm.policies.trees import Lengths
from farm.roles.protocols import Samples

Head = Literal["last", "last+sum"]
HEAD = "head.safetensors"


class LanguageModelScorer:
    """A scalar for a response, or for each of its places.

    Args:
        body: the model; used as it is, not copied.
        tokenizer: saved beside the model, so that the folder is complete.
        head: "last" reads the hidden state at the last token. "last+sum" adds a second linear map summed over the
            response tokens: it learns counts from few examples, and goes on rising where counts were never seen, so
            it is easy to over-optimize.
        weight: [d] for "last", [2, d] for "last+sum".
        bias: [1].
        mean, scale: see :meth:`calibrate`.
    """

    def __init__(
        self,
        body: Body,
        tokenizer: Any,
        head: Head,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        if head not in ("last", "last+sum"):
            raise ValueError(f'the head must be "last" or "last+sum", not {head!r}')
        self.body, self.tokenizer, self.head = body, tokenizer, head
        self.weight = torch.nn.Parameter(weight.detach().float().reshape(-1, body.width).clone().to(body.device))
        self.bias = torch.nn.Parameter(bias.detach().float().reshape(1).clone().to(body.device))
        if len(self.weight) != (1 if head == "last" else 2):
            raise ValueError(f"a head of {len(self.weight)} rows does not fit the kind {head!r}")
        self.mean, self.scale = mean, scale

    @classmethod
    def new(cls, body: Body, tokenizer: Any, head: Head, seed: int) -> LanguageModelScorer:
        """On a copy of ``body``; the head at the last token is drawn from ``seed``, the sum starts at 0."""
        draws = rng.normal(seed, "scorer head", np.arange(body.width, dtype=np.uint64)) / (body.width + 1) ** 0.5
        weight = torch.zeros(1 if head == "last" else 2, body.width)
        weight[0] = torch.from_numpy(draws)
        return cls(body.copy(), tokenizer, head, weight, torch.zeros(1))

    def scores(self, samples: Samples) -> torch.Tensor:
        """float32 [B]. A response without any token is scored at the last token of its prompt."""
        prompts, lengths = prompt_lengths(samples), samples.lengths()
        if self.head == "last":
            states = self.body.hidden(samples, prompts + lengths - 1, np.ones_like(lengths))
            return self._calibrated(self._map(states)[:, 0] + self.bias)
        first = np.where(lengths > 0, prompts, prompts - 1)
        counts = np.maximum(lengths, 1)
        parts = self._map(self.body.hidden(samples, first, counts))
        last = onto(counts.cumsum() - 1, self.body.device)
        rows = unflatten(parts[:, 1], response_mask(counts, self.body.device)).sum(-1)
        real = onto(lengths > 0, self.body.device)
        return self._calibrated(parts[last, 0] + torch.where(real, rows, 0.0) + self.bias)

    def values(self, samples: Samples) -> torch.Tensor:
        """float32 [B, T]: of the text before each response token; with "last+sum" over the tokens so far."""
        lengths: Lengths = samples.lengths()
        mask = response_mask(lengths, self.body.device)
        parts = self._map(self.body.hidden(samples, prompt_lengths(samples) - 1, lengths))
        out = unflatten(parts[:, 0] + self.bias, mask)
        if self.head == "last+sum":
            tokens = unflatten(parts[:, 1], mask)
            out = out + tokens.cumsum(-1) - tokens[:, :1]  # the first state is the prompt's: no token of the response
        return torch.where(mask, self._calibrated(out), 0.0)

    def _map(self, states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(states.float(), self.weight)

    def _calibrated(self, raw: torch.Tensor) -> torch.Tensor:
        return (raw - self.mean) / self.scale

    def calibrate(self, mean: float, scale: float) -> None:
        """From now on return (score - mean) / scale, of the score as returned until now; values likewise."""
        self.mean, self.scale = calibrated(self.mean, self.scale, mean, scale)

    def copy(self, zero_head: bool = False) -> LanguageModelScorer:
        """A scorer with a model of its own; ``zero_head`` makes it 0 everywhere, without calibration."""
        head: tuple[torch.Tensor, torch.Tensor, float, float] = (self.weight, self.bias, self.mean, self.scale)
        if zero_head:
            head = (torch.zeros_like(self.weight), torch.zeros_like(self.bias), 0.0, 1.0)
        return LanguageModelScorer(self.body.copy(), self.tokenizer, self.head, *head)

    def with_settings(self, **changed: Any) -> LanguageModelScorer:
        """A copy in which something else trains: ``train_layers``, ``lora`` and ``gradient_checkpointing``, see
        :class:`farm.policies.body.Body`."""
        body = self.body.copy(**changed)
        return LanguageModelScorer(body, self.tokenizer, self.head, self.weight, self.bias, self.mean, self.scale)

    def shard(self) -> None:
        """Spread what trains of the body over the processes; :meth:`unshard` ends it. All must ask at once."""
        self.body.shard()

    def unshard(self) -> None:
        self.body.unshard()

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield from self.body.parameters(with_head=False)
        yield self.weight
        yield self.bias

    def save(self, folder: Path) -> None:
        """The body in Hugging Face format, the head and its calibration beside it."""
        from safetensors.torch import save_file

        self.body.check_whole()
        settings = {
            "head": self.head,
            "mean": self.mean,
            "scale": self.scale,
            "train_layers": self.body.train_layers,
            "compute_dtype": self.body.compute_dtype,
        }
        write_descriptor(folder, LanguageModelScorer, settings)
        save_causal_lm(self.body.model, self.tokenizer, folder)
        save_file({"weight": self.weight.detach().cpu(), "bias": self.bias.detach().cpu()}, folder / HEAD)

    @classmethod
    def load(cls, folder: Path) -> LanguageModelScorer:
        from safetensors.torch import load_file

        settings, head = read_descriptor(folder), load_file(folder / HEAD)
        model, tokenizer = load_causal_lm(str(folder), dtype="auto")
        body = Body(model, settings["train_layers"], settings["compute_dtype"])
        kind, mean, scale = settings["head"], settings["mean"], settings["scale"]
        return cls(body, tokenizer, kind, head["weight"], head["bias"], mean, scale)
