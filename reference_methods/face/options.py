"""The options of `farm game`, as the command line and Python share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from farm.base.bounds import Count
from farm.face.options import PYTHON_ONLY, Flag


@dataclass(frozen=True, kw_only=True)
class GameOptions:
    preferences: Annotated[Any, Flag(argument=True, kind=Path)] = field(kw_only=False)
    """A JSON file: `preferences` (K x K), and perhaps `reference` (K) and `responses` (K)."""
    method: str = field(default="all", kw_only=False)
    """nash_md, egpo, inpo, ..., a YAML file, or `all` for a comparison."""
    reference: Annotated[Any, PYTHON_ONLY] = None
    """Probabilities [K], where `preferences` is a matrix [K, K]; uniform by default."""
    beta: float | None = None
    """Strength of the KL; by default the method's, 0 for one without an anchor."""
    step_size: float | None = None
    """Step size in units of a preference; default: the method's own."""
    iterations: Count = 200
    """Steps of the learner."""
    samples: Annotated[str | int | None, Flag(metavar="exact|N", kind=str)] = "exact"
    """Exact expectations, or N Bernoulli duels behind every number."""
    seed: int = 0
    """The seed of the duels."""
    plot: Path | None = None
    """Draw the course: .svg, or .png and .pdf with matplotlib."""
