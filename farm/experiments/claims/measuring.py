"""The numbers of a cell: what its measure makes of the tables of each variant of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pandas as pd

from farm.base.errors import UserError, nearest
from farm.experiments import run_tables
from farm.experiments.claims import paper as papers
from farm.experiments.claims.paper import Cell
from farm.experiments.experiment import Study
from farm.tables import formats


class RunTables(Mapping[str, pd.DataFrame]):
    """The tables of one run folder by name, read when they are asked for: those below ``tables``, the training log as
    ``metrics``, and the evaluator's (``leaderboard``, ...)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, pd.DataFrame] = {}
        self._paths = {path.stem: path for path in sorted(folder.glob("*.json")) if path.with_suffix(".csv").is_file()}
        self._paths |= {path.stem: path for path in sorted((folder / "tables").glob("*.parquet"))}
        self._paths |= {"metrics": folder / "metrics.jsonl"} if (folder / "metrics.jsonl").is_file() else {}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._paths:
            raise UserError(f"{self.folder}: there is no table `{name}`; {nearest(name, self._paths)}")
        if name not in self._read:
            path = self._paths[name]
            self._read[name] = formats.read_table(path) if path.suffix == ".jsonl" else run_tables.read(path)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def tables_of(study: Study, folder: Path) -> dict[str, RunTables]:
    """Variant -> its tables; a variant that failed has none."""
    places = {v.name: folder / "runs" / v.name if study.plural else folder for v in study.variants}
    return {name: RunTables(place) for name, place in places.items() if place.is_dir()}


def values(
    study: Study,
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    measure: str,
    cell: Cell,
    failed: Collection[tuple[str, str]] = (),
) -> pd.DataFrame:
    """``seed``, ``value`` and, where the measure gives it, ``instruction``, of all variants that the cell means,
    without those in which the method ``failed``: (variant, method)."""
    asked = papers.measure(measure, cell, study.origin)
    parts = []
    for variant in papers.variants(study, cell):
        if variant.name not in tables or (variant.name, cell.method) in failed:
            continue
        try:
            if (other := papers.beside(asked, study, variant, study.origin)) is None:
                found = asked.values(tables[variant.name], cell.method)
            elif other.name in tables:
                found = asked.values_beside(tables[variant.name], tables[other.name], cell.method)  # type: ignore[attr-defined]
            else:
                continue
        except (ValueError, KeyError) as error:
            raise UserError(f"{study.origin}: {measure} of {cell.method} in {variant.name}: {error}") from error
        parts.append(found.assign(seed=variant.experiment.seed))
    if not parts:
        return pd.DataFrame({"seed": [], "value": []})
    return pd.concat(parts, ignore_index=True)
