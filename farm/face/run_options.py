"""The options of `farm run`, as the command line and Python share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from farm.asking.limits import AskingOptions
from farm.base.bounds import Count
from farm.face.options import Flag, Listed, Repeated


@dataclass(frozen=True, kw_only=True)
class RunOptions(AskingOptions):
    experiment: Annotated[Any, Flag(argument=True, kind=str)] = field(kw_only=False)
    """An experiment by name (see `farm list`) or by path."""
    settings: Annotated[Any, Flag("--set", metavar="A.B=C", kind=list[str])] = field(default=(), kw_only=False)
    """Change a setting."""
    out: Path | None = None
    """The run folder; default runs/<name>-s<seed>-<digest>."""
    seed: int | None = None
    """The seed of everything random."""
    only: Annotated[tuple[str, ...] | None, Listed(), Flag(metavar="METHOD,...", kind=str)] = None
    """Only these methods."""
    force: Annotated[Repeated, Flag(metavar="STAGE")] = ()
    """Rebuild this stage and everything downstream."""
    engine: str = "here"
    """Where stages are made: here, local (processes) or ray."""
    workers: Count | None = None
    """Stages at a time, with --engine local or ray."""
