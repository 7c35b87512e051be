"""A paper from start to end: its experiments one after the other, then the claims and the controls.

The run folder has ``claims.json`` (what was seen), ``runs/<run>`` (the folder of each experiment) and the report's
page. Its stages are those of any run: the same command goes on where it was interrupted, and finds what is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

import farm
from farm.asking.limits import Limits
from farm.base import files, progress
from farm.base.errors import UserError, brief
from farm.experiments import run_folder
from farm.experiments.claims import measuring
from farm.experiments.claims.effects import Effect, effect, inside, verdict
from farm.experiments.claims.paper import Claim, Control, Planned
from farm.experiments.claims.recorded import FILE, Result, Seen
from farm.experiments.running import StudyRunner
from farm.storage.artifacts import Artifacts


@dataclass(frozen=True)
class PaperRun:
    """What the run of a paper came to."""

    folder: Path
    result: Result
    failures: Sequence[dict[str, Any]] = ()

    @property
    def claims(self) -> pd.DataFrame:
        """One row a claim: ``name, title, arxiv, claim, verdict, effect, low, high, n, seeds, minutes``."""
        return pd.DataFrame(self.result.rows())

    @property
    def report(self) -> Path | None:
        path = self.folder / "report.html"
        return path if path.is_file() else None


class PaperRunner:
    """Runs a paper: a folder with that of each experiment in it."""

    def __init__(self, planned: Planned, out: Path | None = None, force: Sequence[str] = ()) -> None:
        self.planned = planned
        self.folder = out or Path("runs") / f"{planned.name}-{planned.digest:016x}"
        self.runners = {
            run: StudyRunner(study, self.folder / "runs" / run, force) for run, study in planned.studies.items()
        }

    def go(self, engine: str = "here", workers: int | None = None, limits: Limits | None = None) -> PaperRun:
        """Run, or go on with it; a budget is for all experiments together."""
        run_folder.check(self.folder)
        for runner in self.runners.values():  # a mistake in the last must not cost the training of the first
            for plan in runner.plans:
                plan.setting.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_config(self.folder, self.planned.paper.model_dump(mode="json", exclude_defaults=True))
        failures: list[dict[str, Any]] = []
        for run, runner in self.runners.items():
            progress.note(f"{self.planned.name}: {run}")
            done = runner.go(engine, workers, self._left(limits or Limits(), run))
            failures += [{"run": run, **failure} for failure in done.failures]
        with progress.task("measuring"):
            result = self._result(failures)
        files.write_text(self.folder / FILE, result.model_dump_json(indent=1))
        run_folder.report(self.folder, next(iter(self.runners.values())).plans[0].setting.reporter())
        return PaperRun(self.folder, result, failures)

    def _left(self, limits: Limits, run: str) -> Limits:
        """The limits of one experiment: without what the stages of the others have paid."""
        if limits.budget is None:
            return limits
        own, paid = self.runners[run].graph(), dict[str, float]()
        for runner in self.runners.values():
            artifacts = runner.plans[0].artifacts
            others = {key: node for key, node in runner.graph().items() if node.pays and key not in own}
            paid |= {key: artifacts.paid(node.name, key) for key, node in others.items()}
        return replace(limits, budget=max(limits.budget - sum(paid.values()), 0.0))

    def _result(self, failures: Sequence[Mapping[str, Any]]) -> Result:
        paper, failed = self.planned.paper, self._failed(failures)
        tables = {run: measuring.tables_of(study, self.folder / "runs" / run) for run, study in self._studies.items()}
        controls = []
        for control in paper.controls:
            seen = self._effect(control, tables, failed)
            held = verdict(seen, control.expect) == "shown" if control.expect else inside(seen, control.within or 0.0)
            controls.append(Seen.of(control.text, "held" if held else "failed", seen))
        wrong = [control for control, seen in zip(paper.controls, controls, strict=True) if seen.verdict == "failed"]
        claims = []
        for claim in paper.claims:
            seen = self._effect(claim, tables, failed)
            void = any(control.is_about(claim) for control in wrong)
            claims.append(Seen.of(claim.text, "void" if void else verdict(seen, claim.expect), seen))
        return Result(
            name=self.planned.name,
            title=paper.title,
            arxiv=paper.arxiv,
            digest=f"{self.planned.digest:016x}",
            version=farm.__version__,
            date=datetime.now(UTC).date().isoformat(),
            seeds=self.planned.seeds,
            minutes=round(self._seconds() / 60, 2),
            claims=[*claims, *(Seen(text=said.text, verdict="stated") for said in paper.stated)],
            controls=controls,
        )

    @property
    def _studies(self) -> Mapping[str, Any]:
        return self.planned.studies

    def _effect(
        self,
        what: Claim | Control,
        tables: Mapping[str, dict[str, measuring.RunTables]],
        failed: Mapping[str, set[tuple[str, str]]],
    ) -> Effect:
        cells, signs = zip(*what.cells, strict=True)
        found = [measuring.values(self._studies[c.run], tables[c.run], what.measure, c, failed[c.run]) for c in cells]
        try:
            return effect(found, signs, what.exact).less(what.known)
        except UserError as error:
            raise UserError(f"{self.planned.path}: {brief(what.text, 80)}: {error}") from error

    def _failed(self, failures: Sequence[Mapping[str, Any]]) -> dict[str, set[tuple[str, str]]]:
        """Run -> the variants and methods that failed there, which leave a seed less and no table."""
        found: dict[str, set[tuple[str, str]]] = {run: set() for run in self._studies}
        for failure in failures:
            only = self._studies[failure["run"]].variants[0].name  # of a run that is not swept
            found[failure["run"]].add((failure.get("variant", only), failure["method"]))
        return found

    def _seconds(self) -> float:
        """What all stages took when they were made, each once."""
        seconds: dict[str, float] = {}
        for runner in self.runners.values():
            artifacts: Artifacts = runner.plans[0].artifacts
            for key, node in runner.graph().items():
                if artifacts.there(node.name, key):
                    seconds[key] = artifacts.find(node.name, key).seconds
        return sum(seconds.values())
