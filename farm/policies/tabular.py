"""A policy that is a table: a softmax over K responses for each of S prompts, and its scorer.

A response is one token, whose id is the index of the response, so that everything written for sequences of tokens
runs on the table unchanged, and every expectation is a finite sum. Methods are proven here before they meet a model.
The table keeps the float type it is given: float32, or float64 where a proof needs the digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.base import rng
from farm.base.errors import UserError
from farm.policies import read_descriptor, write_descriptor
from farm.roles.protocols import Samples

TABLE = "table.safetensors"


class _Rows:
    """Which prompts and responses the table knows, and where."""

    def __init__(self, prompts: Sequence[str], responses: Sequence[str]) -> None:
        self.prompts, self.responses = list(prompts), list(responses)
        self._state = {text: i for i, text in enumerate(self.prompts)}
        self._action = {text: i for i, text in enumerate(self.responses)}
        if len(self._state) < len(self.prompts) or len(self._action) < len(self.responses):
            raise ValueError("the prompts and the responses of a table must each be distinct")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.prompts), len(self.responses)

    def states(self, prompts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([_find(self._state, text, "prompt") for text in prompts], dtype=np.int64)

    def actions(self, outputs: Sequence[str]) -> NDArray[np.int64]:
        return np.array([_find(self._action, text, "response") for text in outputs], dtype=np.int64)

    def where(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        """State and action of each sample, int64 [B] each, from the tokens."""
        states = np.array([tokens[0] for tokens in samples.prompt_tokens], dtype=np.int64)
        actions = np.array([tokens[0] for tokens in samples.response_tokens], dtype=np.int64)
        return torch.from_numpy(states), torch.from_numpy(actions)

    def samples(
        self, prompts: Sequence[str], actions: NDArray[np.int64], log_probabilities: NDArray[np.float32]
    ) -> Samples:
        states = self.states(prompts)
        return Samples(
            prompts=list(prompts),
            outputs=[self.responses[a] for a in actions],
            prompt_tokens=list(states.astype(np.int32)[:, None]),
            response_tokens=list(actions.astype(np.int32)[:, None]),
            log_probabilities=list(log_probabilities.astype(np.float32)[:, None]),
            finish_reason=["stop"] * len(prompts),
        )


def _find(index: dict[str, int], text: str, what: str) -> int:
    if text not in index:
        raise UserError(f"the {what} {text[:60]!r} is not in the table; it knows {len(index)} {what}s")
    return index[text]


class TabularPolicy:
    """A softmax over the same K responses for each of S prompts.

    Args:
        prompts: the S prompts, distinct.
        responses: the K responses, distinct.
        logits: [S, K]; zeros (the uniform policy) if omitted.
    """

    def __init__(
        self, prompts: Sequence[str], responses: Sequence[str], logits: torch.Tensor | NDArray[Any] | None = None
    ) -> None:
        self.rows = _Rows(prompts, responses)
        table = torch.zeros(self.rows.shape) if logits is None else torch.as_tensor(logits).detach().clone()
        if tuple(table.shape) != self.rows.shape:
            raise ValueError(f"the logits must have shape {self.rows.shape}, not {tuple(table.shape)}")
        self.logits = torch.nn.Parameter(table if table.is_floating_point() else table.float())

    @classmethod
    def from_probabilities(
        cls, prompts: Sequence[str], responses: Sequence[str], probabilities: torch.Tensor | NDArray[Any]
    ) -> TabularPolicy:
        """The policy with these probabilities, [S, K] or [K] for every prompt alike; all must be positive."""
        table = torch.as_tensor(probabilities)
        if not bool((table > 0).all()):
            raise ValueError("a softmax table gives every response a positive probability")
        table = table / table.sum(-1, keepdim=True)
        return cls(prompts, responses, table.log().expand(len(prompts), len(responses)))

    @property
    def prompts(self) -> list[str]:
        return self.rows.prompts

    @property
    def responses(self) -> list[str]:
        return self.rows.responses

    def log_table(self, temperature: float = 1.0) -> torch.Tensor:
        """Log-probabilities of all responses, [S, K], with gradient."""
        if temperature <= 0:
            raise ValueError("log-probabilities need a positive temperature")
        return torch.log_softmax(self.logits / temperature, dim=-1)

    def probabilities(self, temperature: float = 1.0) -> torch.Tensor:
        """Probabilities of all responses, [S, K], with gradient: ``(probabilities() * f).sum(-1)`` is exact."""
        return self.log_table(temperature).exp()

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,  # noqa: ARG002 (the role's signature; a table's response is one token)
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """As :meth:`farm.roles.protocols.Policy.sample`; temperature 0 takes the most probable response."""
        states = self.rows.states(prompts)
        with torch.no_grad():
            logits = self.logits.double().cpu().numpy()[states]
            if temperature == 0:
                actions = logits.argmax(1)
                drawn = np.zeros(len(actions), np.float32)
            else:
                table = self.log_table(temperature).double().cpu().numpy()[states]
                cumulative = np.exp(table).cumsum(1)
                draws = rng.uniform(seed, purpose, rng.text_ids(prompts), occurrences(prompts), 0)
                actions = (cumulative <= (draws * cumulative[:, -1])[:, None]).sum(1)
                actions = np.minimum(actions, logits.shape[1] - 1)
                drawn = np.take_along_axis(table, actions[:, None], 1)[:, 0].astype(np.float32)
        if progress:
            progress(len(states))
        return self.rows.samples(prompts, actions.astype(np.int64), drawn)

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        states, actions = self.rows.where(samples)
        chosen = self.log_table(temperature)[states, actions][:, None]
        return chosen, torch.ones_like(chosen, dtype=torch.bool)

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.rows.where(samples)
        return self.log_table(temperature)[states][:, None, :], torch.ones(len(samples), 1, dtype=torch.bool)

    def encode(self, prompts: Sequence[str], outputs: Sequence[str]) -> Samples:
        """Responses of the table by their text. Raises UserError for a text that it does not know."""
        return self.rows.samples(prompts, self.rows.actions(outputs), np.zeros(len(outputs), np.float32))

    def scorer(self, seed: int) -> TabularScorer:  # noqa: ARG002 (a table starts at zero)
        return TabularScorer(self.prompts, self.responses, torch.zeros_like(self.logits))

    def copy(self) -> TabularPolicy:
        return TabularPolicy(self.prompts, self.responses, self.logits)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.logits

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        write_descriptor(folder, TabularPolicy, {"prompts": self.prompts, "responses": self.responses})
        save_file({"logits": self.logits.detach().contiguous()}, folder / TABLE)

    @classmethod
    def load(cls, folder: Path) -> TabularPolicy:
        from safetensors.torch import load_file

        settings = read_descriptor(folder)
        return cls(settings["prompts"], settings["responses"], load_file(folder / TABLE)["logits"])


class TabularScorer:
    """A score for each of K responses to each of S prompts, and a value for each prompt before the response.

    Args:
        table: scores [S, K]; zeros if omitted.
        value: [S]; zeros if omitted.
        mean, scale: see :meth:`calibrate`.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        table: torch.Tensor | NDArray[Any] | None = None,
        value: torch.Tensor | NDArray[Any] | None = None,
        mean: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self.rows = _Rows(prompts, responses)
        scores = torch.zeros(self.rows.shape) if table is None else torch.as_tensor(table).detach().clone()
        before = scores.new_zeros(len(prompts)) if value is None else torch.as_tensor(value).detach().clone()
        if tuple(scores.shape) != self.rows.shape or before.shape != scores.shape[:1]:
            raise ValueError(f"the scores must have shape {self.rows.shape} and the values {self.rows.shape[:1]}")
        self.table = torch.nn.Parameter(scores)
        self.value = torch.nn.Parameter(before)
        self.mean, self.scale = mean, scale

    def scores(self, samples: Samples) -> torch.Tensor:
        states, actions = self.rows.where(samples)
        return (self.table[states, actions] - self.mean) / self.scale

    def values(self, samples: Samples) -> torch.Tensor:
        states, _ = self.rows.where(samples)
        return ((self.value[states] - self.mean) / self.scale)[:, None]

    def calibrate(self, mean: float, scale: float) -> None:
        """From now on return (score - mean) / scale, of the score as returned until now; values likewise."""
        self.mean, self.scale = calibrated(self.mean, self.scale, mean, scale)

    def copy(self, zero_head: bool = False) -> TabularScorer:
        """The same table; with ``zero_head`` all zeros and no calibration (the start of a value model)."""
        if zero_head:
            return TabularScorer(self.rows.prompts, self.rows.responses, torch.zeros_like(self.table))
        return TabularScorer(self.rows.prompts, self.rows.responses, self.table, self.value, self.mean, self.scale)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.table
        yield self.value

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        known = {"prompts": self.rows.prompts, "responses": self.rows.responses}
        write_descriptor(folder, TabularScorer, {**known, "mean": self.mean, "scale": self.scale})
        tensors = {"table": self.table.detach().contiguous(), "value": self.value.detach().contiguous()}
        save_file(tensors, folder / TABLE)

    @classmethod
    def load(cls, folder: Path) -> TabularScorer:
        from safetensors.torch import load_file

        settings, tensors = read_descriptor(folder), load_file(folder / TABLE)
        known = settings["prompts"], settings["responses"]
        return cls(*known, tensors["table"], tensors["value"], settings["mean"], settings["scale"])


def calibrated(old_mean: float, old_scale: float, mean: float, scale: float) -> tuple[float, float]:
    """One (mean, scale) that does the work of two in turn: ((x - old_mean) / old_scale - mean) / scale."""
    if not scale > 0:
        raise ValueError("the scale of a calibration must be positive")
    return old_mean + mean * old_scale, old_scale * scale


def occurrences(prompts: Sequence[str]) -> NDArray[np.uint64]:
    """How often each prompt has come before in the list, [n]: the k of the draw's key.

    >>> occurrences(["a", "b", "a"]).tolist()
    [0, 0, 1]
    """
    seen: dict[str, int] = {}
    out = np.empty(len(prompts), dtype=np.uint64)
    for row, prompt in enumerate(prompts):
        out[row] = seen[prompt] = seen.get(prompt, -1) + 1
    return out
