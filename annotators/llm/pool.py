"""A pool of prompted models that differ in model, prompt, persona and batch size, like AlpacaFarm's thirteen.

Members name roles (``strong``, ``quick``), and ``models`` says which model plays a role, so that replacing a model that
was withdrawn is one line. ``model`` and ``base_url`` put the whole pool on one model, such as that of a local server:

    farm annotate pairs.json --annotators alpaca_farm_pool \\
        --set model=openai/HuggingFaceTB/SmolLM2-135M-Instruct --set base_url=http://localhost:8000/v1
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict

from annotators.llm.annotator import LLMAnnotator
from annotators.noise.coins import Unit
from annotators.people.pool import Pool
from farm.asking.givers import description
from farm.base.bounds import Count, Natural, NotNegative
from farm.base.errors import nearest
from farm.storage.store import Store


@dataclass(frozen=True)
class Role:
    """A model and how it is run."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str
    """``provider/name``"""
    temperature: NotNegative | None = 1.0
    """None where the model accepts none"""
    effort: str | None = None
    thinking: Natural = 0
    """tokens of room to think before the answer"""
    base_url: str | None = None
    key: str | None = None
    """the environment variable of that server's key"""
    extra: dict[str, Any] | None = field(default=None, hash=False)
    """further fields of the request to it"""


@dataclass(frozen=True)
class Member:
    """One annotator of the pool."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    model: str
    """a role"""
    prompt: str = "plain"
    batch: Count = 1
    persona: str = ""
    max_tokens: Count | None = None


@dataclass(frozen=True)
class LLMPool:
    """Each pair goes to one of the members, drawn evenly."""

    models: dict[str, Role]
    members: dict[str, Member]
    model: str | None = None
    """one model for all members, instead of their roles"""
    base_url: str | None = None
    """with ``model``: the server it is on"""
    key: str | None = None
    """with ``base_url``: the environment variable of its key"""
    extra: dict[str, Any] | None = field(default=None, hash=False)
    """with ``model``: further fields of the request to its server"""
    temperature: NotNegative | None = 1.0
    """with ``model``: its temperature"""
    assign: Unit = "pair"
    name: str = "pool"
    store: Store | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("a pool needs at least one member")
        if self.base_url and not self.model:
            raise ValueError("`base_url` needs a `model`: which one of that server is to play all roles?")
        if self.key and not self.base_url:
            raise ValueError("`key` is that of a `base_url`: name the server, or set `key` of one of the `models`")
        if self.extra and not self.model:
            raise ValueError("`extra` is for the server of a `model`: name it, or set `extra` of one of the `models`")
        for name, member in self.members.items():
            if member.model not in self.models:
                raise ValueError(f"member `{name}`: no role `{member.model}`; {nearest(member.model, self.models)}")
        _ = self.pool  # a wrong setting of a member shows here, not at the first pair

    @cached_property
    def pool(self) -> Pool:
        """The pool of the members' annotators."""
        return Pool([self._annotator(name) for name in self.members], assign=self.assign, name=self.name)

    def description(self) -> Any:
        """What the verdicts depend on, as plain data."""
        return description(self.pool)

    def annotate(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> pd.DataFrame:
        return self.pool.annotate(pairs, seed=seed, replicate=replicate)

    def whose(self, pairs: pd.DataFrame, *, seed: int, replicate: int = 0) -> NDArray[np.object_]:
        """Who would be asked about each pair, [n], without asking."""
        return self.pool.whose(pairs, seed=seed, replicate=replicate)

    def _annotator(self, name: str) -> LLMAnnotator:
        member = self.members[name]
        role = self.models[member.model]
        if self.model:
            role = Role(self.model, self.temperature, base_url=self.base_url, key=self.key, extra=self.extra)
        return LLMAnnotator(
            model=role.model,
            prompt=member.prompt,
            name=name,
            base_url=role.base_url,
            key=role.key,
            temperature=role.temperature,
            max_tokens=member.max_tokens,
            thinking=role.thinking,
            batch=member.batch,
            persona=member.persona,
            effort=role.effort,
            extra=role.extra,
            store=self.store,
        )
