"""The rows and columns of a table policy: in which state a conversation is, and which action a token stands for.

A response is one action, whose id is its token, or a fixed number of them; where it has several, each is taken in the
state that the prompt and the actions before it lead to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from farm.base.errors import UserError, nearest
from farm.policies import cells
from farm.roles.protocols import Samples
from farm.tables.turns import Prompt, turns_of

State = Callable[[Prompt, tuple[str, ...]], Prompt]
"""where a policy is, from the prompt and the actions that its response has so far"""


def _whole(prompt: Prompt, prefix: tuple[str, ...]) -> Prompt:
    return (*turns_of(prompt), *prefix) if prefix else prompt


def _tried(prompt: Prompt, prefix: tuple[str, ...]) -> Prompt:
    first, *rest = turns_of(prompt)
    return _whole(first, (*sorted(set(rest[::2])), *prefix))


STATES: dict[str, State] = {
    "whole": _whole,
    "first turn": lambda prompt, prefix: _whole(turns_of(prompt)[0], prefix),
    "tried": _tried,
    "topic": lambda prompt, prefix: _whole(turns_of(prompt)[0].split(":")[0], prefix),
    "cell": lambda prompt, prefix: cells.after(turns_of(prompt)[0], prefix),
}
"""By name: the whole conversation; its first turn, so that history is not seen; the first turn and what was answered
before, in any order; what stands before the first turn's colon, so that questions of one topic are one state; the cell
of a grid that the moves so far lead to, so that the policy is Markov (:mod:`farm.policies.cells`). Others by their
dotted name (:func:`state`)."""


def state(function: State) -> State:
    """Makes a function of a module a state of tables; its name is dotted, as in ``my_world.cell``.

    A saved table says that name alone, and nothing is imported for it: the module is there where its world is.
    """
    STATES[f"{function.__module__}.{function.__qualname__}"] = function
    return function


class Rows:
    """Which states and actions a table knows, and where.

    Args:
        state, length: as of :class:`farm.policies.tabular.TabularPolicy`.

    Raises:
        ValueError: for what stands twice, a state without a name, or actions of longer responses that are no words.
    """

    def __init__(self, states: Sequence[Prompt], actions: Sequence[str], state: str = "whole", length: int = 1) -> None:
        self.prompts, self.responses = list(states), list(actions)
        self.state, self.length = state, length
        self._state = {prompt: i for i, prompt in enumerate(self.prompts)}
        self._action = {text: i for i, text in enumerate(self.responses)}
        if len(self._state) < len(self.prompts) or len(self._action) < len(self.responses):
            raise ValueError("the prompts and the responses of a table must each be distinct")
        if state not in STATES:
            hint = "import the module that defines it first" if "." in state else nearest(state, STATES)
            raise ValueError(f"a table has no state {state!r}; {hint}")
        if length < 1 or (length > 1 and any(" " in text or not text for text in self.responses)):
            raise ValueError("a response has at least 1 action, and actions of longer responses are words")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.prompts), len(self.responses)

    def settings(self) -> dict[str, Any]:
        """What a saved table says of them."""
        return {"prompts": self.prompts, "responses": self.responses, "state": self.state, "length": self.length}

    def states(self, prompts: Sequence[Prompt], prefixes: Sequence[tuple[str, ...]] | None = None) -> NDArray[np.int64]:
        """[n]; ``prefixes`` are the actions that each response has so far."""
        if prefixes is None and self.state == "whole":
            return np.array([_find(self._state, prompt, "prompt") for prompt in prompts], dtype=np.int64)
        state, before = STATES[self.state], [()] * len(prompts) if prefixes is None else prefixes
        rows = zip(prompts, before, strict=True)
        return np.array([_find(self._state, state(*row), "state") for row in rows], dtype=np.int64)

    def actions(self, outputs: Sequence[str]) -> NDArray[np.int64]:
        """[n, length]"""
        rows = [[text] if self.length == 1 else text.split(" ") for text in outputs]
        if wrong := next((text for text, row in zip(outputs, rows, strict=True) if len(row) != self.length), None):
            raise UserError(f"the response {wrong[:60]!r} is not of {self.length} actions")
        found = [[_find(self._action, text, "response") for text in row] for row in rows]
        return np.array(found, dtype=np.int64).reshape(len(rows), self.length)

    def given(self, prompt: Prompt) -> list[int]:
        """The actions that the prompt's history has as responses."""
        return [self._action[text] for text in turns_of(prompt)[1::2] if text in self._action]

    def where(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        """State and action of each place, int64 [B, length] each, from the tokens."""
        states = np.array([tokens[0] for tokens in samples.prompt_tokens], dtype=np.int64)[:, None]
        actions = np.array([tokens[: self.length] for tokens in samples.response_tokens], dtype=np.int64)
        actions = actions.reshape(len(states), self.length)
        if self.length > 1:
            words = [tuple(self.responses[a] for a in row) for row in actions]
            later = [self.states(samples.prompts, [row[:t] for row in words]) for t in range(1, self.length)]
            states = np.stack([states[:, 0], *later], axis=1)
        return torch.from_numpy(states), torch.from_numpy(actions)

    def samples(
        self, prompts: Sequence[Prompt], actions: NDArray[np.int64], log_probabilities: NDArray[np.float32]
    ) -> Samples:
        """``actions`` and ``log_probabilities`` are [n, length]; a prompt's tokens are its state, then what its history
        has as responses."""
        states = self.states(prompts).astype(np.int32)
        tokens = [np.array([state, *self.given(p)], np.int32) for state, p in zip(states, prompts, strict=True)]
        return Samples(
            prompts=list(prompts),
            outputs=[" ".join(self.responses[a] for a in row) for row in actions],
            prompt_tokens=tokens,
            response_tokens=list(actions.astype(np.int32)),
            log_probabilities=list(log_probabilities.astype(np.float32)),
            finish_reason=["stop"] * len(prompts),
        )


def _find(index: dict[Any, int], text: Prompt, what: str) -> int:
    if text not in index:
        said = text if isinstance(text, str) else " / ".join(text)
        raise UserError(f"the {what} {said[:60]!r} is not in the table; it knows {len(index)} {what}s")
    return index[text]


def read_rows(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a saved table's rows; an older one says nothing of states."""
    prompts = [text if isinstance(text, str) else tuple(text) for text in settings["prompts"]]
    known = {"prompts": prompts, "responses": settings["responses"]}
    return {**known, "state": settings.get("state", "whole"), "length": settings.get("length", 1)}
