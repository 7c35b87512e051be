"""What a paper's file says: experiments, the claims that compare cells of them, and controls that can void the claims.

    title: ...                # configs/papers/<name>.yaml, all of it written before the run
    claim: what the paper says, in a sentence
    runs:                     # each an experiment, below `shared`
      shared: {world: pocket, seeds: [1, 2, 3]}
      main: {methods: {ppo:, superhf:}}
    claims:                   # of - against, or (of - against) - (minus: the first - the second)
    - {text: ..., measure: column, of: {run: main, method: superhf}, against: {run: main, method: ppo}, expect: above}
    controls:                 # an equality (`within`) or a sign (`expect`)
    - {text: ..., measure: column, of: {...}, against: {...}, within: 0.1}
    - {text: ..., measure: success, of: {...}, against: 0.618, expect: below}   # a number that is known
    - {text: ..., measure: win, of: {...}, against: {...}, expect: below, voids: [main]}   # claims about `main` alone

A cell's ``variant`` picks among the variants of a sweep by what was swept; of several that fit, the mean is taken, so
that a factor's effect is over all settings of the others. Its ``args`` are settings of the measure.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from farm.base import files, rng
from farm.base.errors import UserError, nearest
from farm.experiments import experiment
from farm.experiments.claims.effects import Sign
from farm.experiments.experiment import Study, Variant
from farm.experiments.setting import SFT
from farm.experiments.sweeps import label
from farm.roles import config, named_configs
from farm.roles.named_classes import lacking
from farm.roles.protocols import Measure
from farm.storage.store import canonical

SHARED = "shared"
"""among the runs: what all of them say"""
PREFIX = "papers/"


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cell(_Said):
    run: str
    method: str
    variant: dict[str, Any] = {}
    """swept key -> its value; all variants that agree with it"""
    args: dict[str, Any] = {}
    """settings of the measure"""


class _Comparison(_Said):
    text: str
    measure: str
    of: Cell
    against: Cell | float | None = None
    """another cell, or a number that is known"""
    minus: tuple[Cell, Cell] | None = None
    """the difference that is taken off, for an interaction"""
    exact: bool = False
    """its numbers are computed without draws, and so the same with every seed: one shows it"""

    @property
    def cells(self) -> list[tuple[Cell, float]]:
        """The cells and the sign of each."""
        out = [(self.of, 1.0), *([(self.against, -1.0)] if isinstance(self.against, Cell) else [])]
        return [*out, *zip(self.minus or (), (-1.0, 1.0), strict=False)]

    @property
    def known(self) -> float:
        """The number that is taken off, 0 where cells are compared."""
        return self.against if isinstance(self.against, float) else 0.0

    @model_validator(mode="after")
    def _is_interaction(self) -> Self:
        if self.minus and self.against is None:
            raise ValueError("`minus` takes a difference off a difference, so `against` must be given")
        return self


class Claim(_Comparison):
    expect: Sign
    paper: str = ""
    """the paper's number, or "none" """


class Control(_Comparison):
    against: Cell | float
    within: float | None = Field(default=None, gt=0)
    """the whole interval must lie within so much of 0"""
    expect: Sign | None = None
    """the sign that the difference must have"""
    voids: list[str] | None = Field(default=None, min_length=1)
    """the runs whose claims it voids where it fails; None is every claim"""

    def is_about(self, claim: Claim) -> bool:
        return self.voids is None or any(cell.run in self.voids for cell, _ in claim.cells)

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.within is None) == (self.expect is None):
            raise ValueError("a control is an equality, with `within`, or has a sign, with `expect`: say one of them")
        return self


class Stated(_Said):
    """What the paper says and no run here can test, such as arithmetic."""

    text: str
    paper: str = ""


class Paper(_Said):
    title: str
    arxiv: str = ""
    claim: str
    runs: dict[str, dict[str, Any]]
    claims: list[Claim] = Field(min_length=1)
    controls: list[Control] = []
    stated: list[Stated] = []
    notes: str = ""
    """what is to be said of the result: what was cut, and why a claim is not shown"""


@dataclass(frozen=True)
class Planned:
    """A paper whose every name is known."""

    name: str
    path: Path
    paper: Paper
    studies: dict[str, Study]
    """run -> its experiment in all its variants"""

    @property
    def seeds(self) -> list[int]:
        return sorted({variant.experiment.seed for study in self.studies.values() for variant in study.variants})

    @property
    def digest(self) -> int:
        """Of what determines the result; words and notes may change afterwards."""
        said = self.paper.model_dump(mode="json", include={"runs", "claims", "controls"})
        for what in said["claims"] + said["controls"]:
            del what["text"]
            for key in ("exact", "voids"):  # results were recorded before these could be said
                if not what.get(key):
                    what.pop(key, None)
        return rng.text_id(canonical(said))


def names() -> dict[str, Path]:
    """The papers that there are: name -> file."""
    return named_configs.named("papers")


def is_paper(name: str) -> bool:
    """Whether what `farm run` is given names a paper: papers/NAME, or a file that has claims."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return files.exists(path) and "claims" in named_configs.load_mapping(path)
    return name.startswith(PREFIX)


def load(name: str, settings: Sequence[str] = (), seed: int | None = None) -> Planned:
    """A paper by ``papers/NAME`` or by path; ``settings`` change what its runs share.

    Raises:
        UserError: naming the file and the key, for anything that would fail later.
    """
    path = named_configs.find("papers", name.removeprefix(PREFIX) if not name.endswith((".yaml", ".yml")) else name)
    data = named_configs.load_mapping(path)
    runs = data.get("runs")
    if not isinstance(runs, dict):
        raise UserError(f"{path}: `runs` must be a mapping of names to experiments")
    settings = [*settings, *([f"seeds=[{seed}]"] if seed is not None else [])]
    data = {**data, "runs": {**runs, SHARED: config.override(runs.get(SHARED) or {}, settings)}}
    return planned(path.stem, path, config.validate(Paper, data, str(path)))


def planned(name: str, path: Path, paper: Paper) -> Planned:
    """The experiments of a paper, and the check that its claims and controls name what there is."""
    shared = paper.runs.get(SHARED, {})
    studies = {}
    for run, said in paper.runs.items():
        if run != SHARED:
            data = {"name": f"{name}-{run}", **_over(shared, said)}
            studies[run] = experiment.from_mapping(data, str(path))
    found = Planned(name, path, paper, studies)
    for k, control in enumerate(paper.controls):
        _check_voids(found, f"{path}: controls[{k}]", control)
    for place, what in _compared(paper):
        seeds: dict[str, set[int]] = {}
        for cell, _ in what.cells:
            _check(found, f"{path}: {place}", what.measure, cell)
            seeds[cell.run] = {variant.experiment.seed for variant in variants(studies[cell.run], cell)}
        if len(set(map(frozenset, seeds.values()))) > 1:
            raise UserError(f"{path}: {place}: the runs {' and '.join(seeds)} have other seeds, so nothing is paired")
    return found


def variants(study: Study, cell: Cell) -> list[Variant]:
    """The variants that agree with a cell."""
    return [v for v in study.variants if all(v.labels.get(key) == label(value) for key, value in cell.variant.items())]


def measure(name: str, cell: Cell, origin: str) -> Measure:
    """The measure of a claim with the settings of a cell."""
    known = named_configs.names("measures")
    if name not in known and not name.endswith((".yaml", ".yml")):
        raise UserError(f"{origin}: there is no measure `{name}`; {nearest(name, known)}" + lacking("measures"))
    return config.build(Measure, {"use": name, **cell.args}, origin=origin)


def beside(measure: Measure, study: Study, variant: Variant, origin: str) -> Variant | None:
    """The variant whose tables a measure reads beside those of another one (``values_beside``); None for most measures.

    Raises:
        UserError: there is none such.
    """
    other: dict[str, Any] = getattr(measure, "beside", None) or {}
    if not other:
        return None
    wanted = {**variant.labels, **{key: label(value) for key, value in other.items()}}
    found = [v for v in study.variants if v.labels == wanted and v.experiment.seed == variant.experiment.seed]
    if not found:
        raise UserError(f"{origin}: no variant of the run has {other} beside {variant.name}")
    return found[0]


def _compared(paper: Paper) -> Iterator[tuple[str, Claim | Control]]:
    yield from ((f"claims[{k}]", claim) for k, claim in enumerate(paper.claims))
    yield from ((f"controls[{k}]", control) for k, control in enumerate(paper.controls))


def _check_voids(found: Planned, origin: str, control: Control) -> None:
    asked = {cell.run for claim in found.paper.claims for cell, _ in claim.cells}
    if control.voids is not None and (unknown := next((run for run in control.voids if run not in asked), None)):
        raise UserError(f"{origin}: `voids`: no claim is about a run `{unknown}`; {nearest(unknown, asked)}")


def _check(found: Planned, origin: str, name: str, cell: Cell) -> None:
    if cell.run not in found.studies:
        raise UserError(f"{origin}: there is no run `{cell.run}`; {nearest(cell.run, found.studies)}")
    study = found.studies[cell.run]
    swept = {key: {v.labels.get(key) for v in study.variants} for key in study.variants[0].labels}
    for key, value in cell.variant.items():
        if key not in swept:
            raise UserError(f"{origin}: the run {cell.run} does not sweep `{key}`; {nearest(key, swept)}")
        if label(value) not in swept[key]:
            raise UserError(f"{origin}: the run {cell.run} has no {key} {value}; {nearest(str(value), swept[key])}")
    if not variants(study, cell):
        raise UserError(f"{origin}: no variant of the run {cell.run} has all of {cell.variant}")
    asked = measure(name, cell, origin)
    for variant in variants(study, cell):
        beside(asked, study, variant, origin)
    needed = asked.tables
    if study.whole.compute is not None:  # what it makes is known when it is made
        return
    methods = (SFT, *study.whole.methods)
    if cell.method not in methods:
        raise UserError(f"{origin}: the run {cell.run} has no method `{cell.method}`; {nearest(cell.method, methods)}")
    talks = () if study.whole.user is None else ("dialogues",)
    there = ("outputs", "metrics", "preferences", *talks, *(f"judge_{role}" for role in study.whole.judges))
    for table in needed:
        if table not in there:
            raise UserError(
                f"{origin}: {name} reads `{table}`, which {cell.run} does not make; {nearest(table, there)}"
            )


def _over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says over what all say; mappings by their keys, unless they name a class."""
    out = copy.deepcopy(dict(shared))
    for key, value in own.items():
        before = out.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and not {"use", "class"} & set(value):
            out[key] = _over(before, value)
        else:
            out[key] = copy.deepcopy(value)
    return out
