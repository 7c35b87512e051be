"""The options of `farm status`, `config`, `convert`, `push` and `clean`, as the command line and Python share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from farm.base.bounds import NotNegative
from farm.face.options import Flag


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    run: Annotated[Path, Flag(argument=True)] = field(kw_only=False)
    """The run folder, as `farm run` names it."""


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    experiment: Annotated[Any, Flag(argument=True, kind=str)] = field(default=None, kw_only=False)
    """An experiment by name or by path."""
    settings: Annotated[Any, Flag("--set", metavar="A.B=C", kind=list[str])] = field(default=(), kw_only=False)
    """Change a setting."""
    seed: int | None = None
    """The seed, as with `farm run`."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    source: Annotated[Any, Flag(argument=True, metavar="IN", kind=str)] = field(kw_only=False)
    """A file, or a data set of the hub: owner/name:config."""
    to: str | None = field(default=None, kw_only=False)
    """The format to write; that of the source where it is left out."""
    renamed: Annotated[Any, Flag("--map", metavar="NEW=OLD", kind=list[str])] = ()
    """A field, and the column of the source that it is."""


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    source: Annotated[Path, Flag(argument=True)] = field(kw_only=False)
    """A run, a checkpoint of it, or a set of feedback."""
    repository: Annotated[str, Flag(argument=True, metavar="OWNER/NAME")] = field(kw_only=False)
    """Where it goes on the hub."""
    license: str | None = None
    """Under which licence, as the hub names it: apache-2.0, cc-by-4.0."""
    public: bool = False
    """Make a new repository that everyone sees."""
    yes: bool = False
    """Push what is shown."""


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    days: NotNegative = field(default=30.0, kw_only=False)
    """Stages that were not used for so many days."""
    yes: bool = False
    """Remove what is listed."""
