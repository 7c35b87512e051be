"""A policy that is a table: a softmax over K responses for each of S prompts, and its scorer.

A response is one token, whose id is the index of the response, so that everything written for sequences of tokens
runs on the table unchanged, and every expectation is a finite sum. Methods are proven here before they meet a model.
With a ``state`` the rows are states of conversations, and with a ``length`` a response is several actions.
The table keeps the float type it is given: float32, or float64 where a proof needs the digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.base import rng
from farm.policies import read_descriptor, write_descriptor
from farm.policies.table_rows import Rows, read_rows
from farm.roles.protocols import Draws, Samples
from farm.tables.turns import Prompt, prompt_ids

TABLE = "table.safetensors"


class TabularPolicy:
    """A softmax over the same K responses for each of S prompts.

    Args:
        prompts: the S prompts, distinct; with a ``state`` the S states.
        responses: the K responses, distinct; with a ``length`` the K actions that a response is made of.
        logits: [S, K]; zeros (the uniform policy) if omitted.
        state: which of :data:`farm.policies.table_rows.STATES` says where in the table a prompt is, with the actions of
            its response so far.
        length: how many actions a response has; they are words, and its tokens.
        again: one logit, shared by all states, of what the conversation already has as a response: what a policy makes
            of its own earlier answers. None: it makes nothing of them, and there is no such parameter.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        logits: torch.Tensor | NDArray[Any] | None = None,
        state: str = "whole",
        length: int = 1,
        again: float | torch.Tensor | None = None,
    ) -> None:
        self.rows = Rows(prompts, responses, state, length)
        table = torch.zeros(self.rows.shape) if logits is None else torch.as_tensor(logits).detach().clone()
        if tuple(table.shape) != self.rows.shape:
            raise ValueError(f"the logits must have shape {self.rows.shape}, not {tuple(table.shape)}")
        self.logits = torch.nn.Parameter(table if table.is_floating_point() else table.float())
        self.again = None
        if again is not None:
            self.again = torch.nn.Parameter(torch.as_tensor(again).detach().clone().to(self.logits.dtype))

    @classmethod
    def from_probabilities(
        cls, prompts: Sequence[Prompt], responses: Sequence[str], probabilities: torch.Tensor | NDArray[Any]
    ) -> TabularPolicy:
        """The policy with these probabilities, [S, K] or [K] for every prompt alike; all must be positive."""
        table = torch.as_tensor(probabilities)
        if not bool((table > 0).all()):
            raise ValueError("a softmax table gives every response a positive probability")
        table = table / table.sum(-1, keepdim=True)
        return cls(prompts, responses, table.log().expand(len(prompts), len(responses)))

    @property
    def prompts(self) -> list[Prompt]:
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
        prompts: Sequence[Prompt],
        *,
        seed: int,
        purpose: str,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,  # noqa: ARG002 (the role's signature; a table's response is one token)
        progress: Callable[[int], None] | None = None,
        draws: Draws | None = None,
    ) -> Samples:
        """As :meth:`farm.roles.protocols.Policy.sample`; temperature 0 takes the most probable action each time."""
        ids = prompt_ids(prompts)
        number = occurrences(prompts) if draws is None else np.asarray(draws, dtype=np.uint64)
        actions = np.zeros((len(prompts), self.rows.length), dtype=np.int64)
        drawn = np.zeros(actions.shape, np.float32)
        given = self._given(map(self.rows.given, prompts))
        for t in range(self.rows.length):
            prefixes = [tuple(self.responses[a] for a in row[:t]) for row in actions] if t else None
            states = torch.from_numpy(self.rows.states(prompts, prefixes))
            if temperature == 0:
                actions[:, t] = self._logits(states, given).argmax(1).cpu().numpy()
                continue
            with torch.no_grad():
                table = self._log_rows(states, given, temperature).double().cpu().numpy()
            cumulative = np.exp(table).cumsum(1)
            uniform = rng.uniform(seed, purpose, ids, number, t)
            chosen = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(1)
            actions[:, t] = np.minimum(chosen, table.shape[1] - 1)
            drawn[:, t] = np.take_along_axis(table, actions[:, t, None], 1)[:, 0]
        if progress:
            progress(len(prompts))
        return self.rows.samples(prompts, actions, drawn)

    def _given(self, actions: Iterable[Sequence[int]]) -> torch.Tensor | None:
        """Which actions each row's history has as responses, [n, K]; None where the policy does not look."""
        if self.again is None:
            return None
        listed = list(actions)
        out = torch.zeros(len(listed), self.rows.shape[1], dtype=self.logits.dtype)
        rows = np.repeat(np.arange(len(listed)), [len(a) for a in listed])
        out[rows, [action for a in listed for action in a]] = 1
        return out

    def _log_rows(self, states: torch.Tensor, given: torch.Tensor | None, temperature: float) -> torch.Tensor:
        """Log-probabilities of all actions in these states, [..., K] for states [...], with gradient."""
        if self.again is None:
            return self.log_table(temperature)[states]
        if temperature <= 0:
            raise ValueError("log-probabilities need a positive temperature")
        return torch.log_softmax(self._logits(states, given) / temperature, dim=-1)

    def _logits(self, states: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor:
        if self.again is None or given is None:
            return self.logits[states]
        return self.logits[states] + self.again * given.view(len(given), *[1] * (states.dim() - 1), -1)

    def log_probabilities(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        states, actions = self.rows.where(samples)
        if self.again is None:
            chosen = self.log_table(temperature)[states, actions]
        else:
            chosen = self.distributions(samples, temperature)[0].gather(-1, actions[..., None])[..., 0]
        return chosen, torch.ones_like(chosen, dtype=torch.bool)

    def distributions(self, samples: Samples, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = self.rows.where(samples)
        given = self._given(tokens[1:].tolist() for tokens in samples.prompt_tokens)
        return self._log_rows(states, given, temperature), torch.ones(states.shape, dtype=torch.bool)

    def encode(self, prompts: Sequence[Prompt], outputs: Sequence[str]) -> Samples:
        """Responses of the table by their text. Raises UserError for a text that it does not know."""
        actions = self.rows.actions(outputs)
        return self.rows.samples(prompts, actions, np.zeros(actions.shape, np.float32))

    def scorer(self, seed: int) -> TabularScorer:  # noqa: ARG002 (a table starts at zero)
        zeros = torch.zeros_like(self.logits)
        return TabularScorer(self.prompts, self.responses, zeros, state=self.rows.state, length=self.rows.length)

    def copy(self) -> TabularPolicy:
        return TabularPolicy(**self.rows.settings(), logits=self.logits, again=self.again)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.logits
        if self.again is not None:
            yield self.again

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        write_descriptor(folder, TabularPolicy, self.rows.settings())
        tensors = {"logits": self.logits.detach().contiguous()}
        if self.again is not None:
            tensors["again"] = self.again.detach().contiguous()
        save_file(tensors, folder / TABLE)

    @classmethod
    def load(cls, folder: Path) -> TabularPolicy:
        from safetensors.torch import load_file

        tensors = load_file(folder / TABLE)
        return cls(**read_rows(read_descriptor(folder)), logits=tensors["logits"], again=tensors.get("again"))


class TabularScorer:
    """A score for each of K responses to each of S prompts, and a value for each prompt before the response.

    Args:
        table: scores [S, K]; zeros if omitted.
        value: [S]; zeros if omitted.
        mean, scale: see :meth:`calibrate`.
        state, length: as of :class:`TabularPolicy`; a longer response has the score of its last action.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        table: torch.Tensor | NDArray[Any] | None = None,
        value: torch.Tensor | NDArray[Any] | None = None,
        mean: float = 0.0,
        scale: float = 1.0,
        state: str = "whole",
        length: int = 1,
    ) -> None:
        self.rows = Rows(prompts, responses, state, length)
        scores = torch.zeros(self.rows.shape) if table is None else torch.as_tensor(table).detach().clone()
        before = scores.new_zeros(len(prompts)) if value is None else torch.as_tensor(value).detach().clone()
        if tuple(scores.shape) != self.rows.shape or before.shape != scores.shape[:1]:
            raise ValueError(f"the scores must have shape {self.rows.shape} and the values {self.rows.shape[:1]}")
        self.table = torch.nn.Parameter(scores)
        self.value = torch.nn.Parameter(before)
        self.mean, self.scale = mean, scale

    def scores(self, samples: Samples) -> torch.Tensor:
        states, actions = self.rows.where(samples)
        return (self.table[states[:, -1], actions[:, -1]] - self.mean) / self.scale

    def values(self, samples: Samples) -> torch.Tensor:
        states, _ = self.rows.where(samples)
        return (self.value[states] - self.mean) / self.scale

    def calibrate(self, mean: float, scale: float) -> None:
        """From now on return (score - mean) / scale, of the score as returned until now; values likewise."""
        self.mean, self.scale = calibrated(self.mean, self.scale, mean, scale)

    def copy(self, zero_head: bool = False) -> TabularScorer:
        """The same table; with ``zero_head`` all zeros and no calibration (the start of a value model)."""
        rows = self.rows.settings()
        if zero_head:
            return TabularScorer(**rows, table=torch.zeros_like(self.table))
        return TabularScorer(**rows, table=self.table, value=self.value, mean=self.mean, scale=self.scale)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        yield self.table
        yield self.value

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        write_descriptor(folder, TabularScorer, {**self.rows.settings(), "mean": self.mean, "scale": self.scale})
        tensors = {"table": self.table.detach().contiguous(), "value": self.value.detach().contiguous()}
        save_file(tensors, folder / TABLE)

    @classmethod
    def load(cls, folder: Path) -> TabularScorer:
        from safetensors.torch import load_file

        settings, tensors = read_descriptor(folder), load_file(folder / TABLE)
        kept = {"mean": settings["mean"], "scale": settings["scale"]}
        return cls(**read_rows(settings), table=tensors["table"], value=tensors["value"], **kept)


def calibrated(old_mean: float, old_scale: float, mean: float, scale: float) -> tuple[float, float]:
    """One (mean, scale) that does the work of two in turn: ((x - old_mean) / old_scale - mean) / scale."""
    if not scale > 0:
        raise ValueError("the scale of a calibration must be positive")
    return old_mean + mean * old_scale, old_scale * scale


def occurrences(prompts: Sequence[Prompt]) -> NDArray[np.uint64]:
    """How often each prompt has come before in the list, [n]: the k of the draw's key.

    >>> occurrences(["a", "b", "a"]).tolist()
    [0, 0, 1]
    """
    seen: dict[Prompt, int] = {}
    out = np.empty(len(prompts), dtype=np.uint64)
    for row, prompt in enumerate(prompts):
        out[row] = seen[prompt] = seen.get(prompt, -1) + 1
    return out
