"""Recorded results: what was seen when a paper was last run, beside its file; the table of `farm papers`.

``configs/papers/results/<name>.json`` is what ``farm run papers/<name> --record`` writes. It holds the digest of the
file's experiments, claims and controls, so that a result of another version of the file is known as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from farm.base import files
from farm.base.errors import UserError
from farm.experiments.claims import paper as papers
from farm.experiments.claims.effects import Effect
from farm.experiments.claims.paper import PREFIX, Planned
from farm.experiments.run_tables import mapping
from farm.roles import config, named_configs

FILE = "claims.json"
Verdict = Literal["shown", "not shown", "contradicted", "void", "stated", "held", "failed"]
COLUMNS = ("name", "title", "arxiv", "claim", "verdict", "effect", "low", "high", "n", "seeds", "minutes")


class Seen(BaseModel):
    """A claim or a control, and what was seen of it; None is a number that there is not."""

    model_config = ConfigDict(extra="forbid")

    text: str
    verdict: Verdict
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    seeds: int = 0

    @classmethod
    def of(cls, text: str, verdict: str, seen: Effect) -> Seen:
        effect, low, high = (None if math.isnan(v) else v for v in (seen.effect, seen.low, seen.high))
        data = {"effect": effect, "low": low, "high": high, "n": seen.n, "seeds": seen.seeds}
        return cls.model_validate({"text": text, "verdict": verdict, **data})


class Result(BaseModel):
    """What the run of a paper came to."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    arxiv: str
    digest: str
    version: str
    date: str
    seeds: list[int]
    minutes: float
    """that its stages took, one after the other"""
    claims: list[Seen]
    controls: list[Seen]

    def rows(self) -> list[dict[str, Any]]:
        """One object a claim."""
        shared = {"name": self.name, "title": self.title, "arxiv": self.arxiv}
        seen = [{"claim": c.text, **c.model_dump(exclude={"text"})} for c in self.claims]
        return [{k: {**shared, **row, "minutes": self.minutes}[k] for k in COLUMNS} for row in seen]


def record(planned: Planned, result: Result) -> Path:
    """Write a result beside the file of its paper, which must lie in a checkout or be the user's own.

    Raises:
        UserError: where the paper is part of an installed package.
    """
    if planned.path.is_relative_to(named_configs.config_root()) and named_configs.config_root().name == "_configs":
        raise UserError(f"--record: {planned.path} is part of an installed package; run it in a checkout")
    if papers.load(str(planned.path)).digest != planned.digest:
        raise UserError("--record: only what the file itself says is recorded, without --set and --seed")
    path = _place(planned.path)
    path.parent.mkdir(exist_ok=True)
    files.write_text(path, result.model_dump_json(indent=1) + "\n")
    return path


def recorded(path: Path) -> Result | None:
    """The recorded result of the paper in a file; None where there is none."""
    place = _place(path)
    return config.validate(Result, mapping(place), str(place)) if place.is_file() else None


def current(planned: Planned) -> Result | None:
    """The recorded result of this version of a paper's file; None where there is none, or one of another version."""
    found = recorded(planned.path)
    return found if found is not None and found.digest == f"{planned.digest:016x}" else None


def table(names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """One object a claim of every paper, as `farm papers --json`; one that has not been run has no numbers."""
    rows: list[dict[str, Any]] = []
    for name in papers.names() if names is None else names:
        planned = papers.load(PREFIX + name)
        found = current(planned)
        rows += _not_run(planned) if found is None else found.rows()
    return rows


def _not_run(planned: Planned) -> list[dict[str, Any]]:
    paper = planned.paper
    nothing = Result(
        name=planned.name, title=paper.title, arxiv=paper.arxiv, digest="", version="", date="", seeds=[], minutes=0.0,
        claims=[Seen(text=claim.text, verdict="not shown") for claim in paper.claims], controls=[],
    )  # fmt: skip
    return [{**row, "verdict": None, "minutes": None} for row in nothing.rows()]


def _place(path: Path) -> Path:
    return path.parent / "results" / f"{path.stem}.json"
