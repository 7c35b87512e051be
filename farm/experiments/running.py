"""A run from start to end: the stages of all variants as one graph, then the tables, then the folder and the report."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from farm.asking.limits import Limits, OverBudget
from farm.asking.purse import limited
from farm.base import progress, rng
from farm.base.errors import Fruitless, OptionError, UserError, nearest
from farm.base.launched import follows, several
from farm.base.progress import printable
from farm.experiments import computing, remarks, run_folder, trackers
from farm.experiments.experiment import BASELINE, Study, folder_name
from farm.experiments.plan import Plan
from farm.experiments.run_folder import Finished
from farm.experiments.run_status import StatusFile
from farm.experiments.setting import SFT, describe_study
from farm.experiments.stages.accuracy import AccuracyStage, summary
from farm.experiments.stages.answers import Answers
from farm.experiments.stages.dialogues import Dialogues
from farm.experiments.stages.feedback import feedback_with_gold
from farm.experiments.stages.judgement import Judgement
from farm.experiments.stages.stage import Stage
from farm.roles import config
from farm.roles.protocols import Aggregator, Comparison, Replication, Reporter
from farm.scheduling import account as accounts
from farm.scheduling import in_step, order
from farm.scheduling.engines import engine
from farm.scheduling.estimate import Estimator
from farm.scheduling.graph import Graph, Node, descendants, merge
from farm.scheduling.scheduler import Failure, Results, check_budget, schedule
from farm.storage.artifacts import Made
from farm.storage.store import canonical


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    folder: Path
    failures: Sequence[dict[str, Any]] = field(default=())
    """one for each method (and variant) that failed: method, stage, reason"""

    @property
    def leaderboard(self) -> pd.DataFrame:
        return self.table("leaderboard")

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables of the run folder, without its ending: "leaderboard", "agreement", "pairwise", ..."""
        return pd.read_json(StringIO(self.text(name)), orient="records", dtype={"method": str})

    def text(self, name: str) -> str:
        """The same table as JSON."""
        with run_folder.held(self.folder):  # another run may be about to replace it
            if (path := self.folder / f"{name}.json").is_file():
                return path.read_text()
        known = [p.stem for p in self.folder.glob("*.csv")]
        raise UserError(f"{self.folder}: there is no table `{name}`; {nearest(name, known)}")

    @property
    def headlines(self) -> list[str]:
        """What the evaluator or aggregator says in sentences; often nothing."""
        there = (self.folder / "headlines.json").is_file()
        return [str(said) for said in self.table("headlines")["headline"]] if there else []

    def _repr_html_(self) -> str:
        """What a notebook shows; everything that is told is text, whatever stands in it."""
        parts = [f"<p>{escape(str(self.folder))}</p>"]
        with suppress(UserError):  # a folder without tables has nothing more to show
            parts.append(run_folder.compact(self.leaderboard).to_html(index=False, border=0, escape=True))
            parts += [f"<p>{escape(said)}</p>" for said in self.headlines]
        for failure in self.failures:
            said = f"{failure.get('method') or 'all methods'} failed: {failure.get('reason')}"
            parts.append(f"<p>{escape(said)}</p>")
        if self.report is not None:
            parts.append(f'<p><a href="{escape(self.report.resolve().as_uri())}">report</a></p>')
        return printable("\n".join(parts))

    @property
    def report(self) -> Path | None:
        path = self.folder / "report.html"
        return path if path.is_file() else None


class StudyRunner:
    """Runs a study: its plans, its folder, and the stages to rebuild."""

    def __init__(self, study: Study, out: Path | None = None, force: Sequence[str] = ()) -> None:
        self.study = study
        self.plans = [Plan(variant.experiment, study.origin) for variant in study.variants]
        self.folder = out or folder_name(study, self._digest())
        self._force = force

    def _digest(self) -> int:
        if not self.study.plural:
            return self.plans[0].digest
        described = describe_study(self.study.whole, self.study.origin)
        return rng.text_id(canonical([described, [plan.digest for plan in self.plans]]))

    def graph(self) -> Graph:
        """The stages of all variants."""
        with progress.task("planning", total=len(self.plans)) if len(self.plans) > 20 else progress.quiet() as shown:
            graphs = []
            for plan in self.plans:
                graphs.append(plan.graph)
                if shown is not None:
                    shown.advance(1)
        return merge(graphs)

    def again(self, graph: Graph) -> set[str]:
        """The keys of the stages that were asked to be made again, and of all that is made from them."""
        chosen = []
        for name in self._force:
            keys = [key for key, node in graph.items() if name in (node.name, node.kind, node.name.replace(" ", "_"))]
            if not keys:
                known = {n.name for n in graph.values()} | {n.kind for n in graph.values()}
                raise OptionError(f"`force` {name}: there is no such stage; {nearest(name, known)}")
            chosen += keys
        return descendants(graph, chosen)

    def go(self, engine_name: str = "here", workers: int | None = None, limits: Limits | None = None) -> Run:
        """Run, or go on with it; ``limits`` are on what annotators are asked.

        Raises:
            Fruitless: where the budget ends; the answers so far are kept.
        """
        limits = limits or Limits()
        self._check_processes(limits)
        if follows():
            in_step.follow(self.graph(), self.plans[0].artifacts, self._force)
        run_folder.check(self.folder)
        trackers.check()
        for plan in self.plans:
            plan.setting.check()
            plan.warn_of_unused()
        self._say_where()
        aggregator, reporter = self._parts()
        graph = self.graph()
        again = self.again(graph)
        artifacts = self.plans[0].artifacts
        done = in_step.agreed(graph, artifacts, self._force)
        made_by = engine(engine_name, artifacts.root, workers, graph)
        account = accounts.opened(limits, graph, artifacts, again)
        status = StatusFile(self.folder, self.study.whole.name, graph, artifacts, made_by.slots)
        ways = order.ways(graph, order.times(graph, Estimator(artifacts.timings()))) if made_by.slots > 1 else None
        ended = "interrupted"
        try:
            try:
                watch = _Watch(status, graph, engine_name != "here")
                results = schedule(graph, done, made_by, again, watch, account, ways)
            finally:
                made_by.close()
            ended = "failed"
            check_budget(results, account)
            with limited(account.left()):  # an evaluator may ask a judge, too
                run = self._finish(graph, results, aggregator, reporter)
            ended = "finished"
        finally:
            status.end(ended)
        return run

    def _say_where(self) -> None:
        """What the run is on, before anything is loaded; of a model of the user's own, also what fits there."""
        first = self.plans[0]
        if isinstance(first.setting.description["world"].get("model"), str):
            for line in first.device_lines:
                progress.note(line)

    def _check_processes(self, limits: Limits) -> None:
        """Refuse limits where several processes train together and a method asks as it learns."""
        if several() and limits.taking_turns:
            stages = [stage for plan in self.plans for stage in plan.stages.values()]
            if asking := [stage.label() for stage in stages if stage.size().asks_while_learning]:
                raise UserError(f"{asking[0]} asks while it learns, and limits hold in one process: start it in one")

    def _parts(self) -> tuple[Aggregator | None, Reporter | None]:
        if not self.study.plural:
            return None, self.plans[0].setting.reporter()
        whole = self.study.whole
        setting = self.plans[0].setting
        return config.build(Aggregator, whole.aggregator, setting.context, self.study.origin), setting.reporter()

    def _finish(self, graph: Graph, results: Results, aggregator: Aggregator | None, reporter: Reporter | None) -> Run:
        if self.study.whole.compute is not None:
            return Run(self.folder, computing.finish(self.study, self.plans, results, self.folder))
        if aggregator is None:
            finished = _finished(self.plans[0], results)
            remarks.tell_missing(finished.comparison)
            remarks.tell_repeated(finished.feedback, self.plans[0].setting.sources)
            run_folder.write(self.folder, finished, reporter)
            return Run(self.folder, finished.failures)
        failures: list[dict[str, Any]] = []
        with run_folder.replaced(self.folder) as new:
            rows, folders = [], []
            with progress.task("evaluating", total=len(self.plans)) as shown:
                for variant, plan in zip(self.study.variants, self.plans, strict=True):
                    try:
                        with progress.quiet():
                            finished = _finished(plan, results)
                        remarks.tell_missing(finished.comparison, variant.name)
                        remarks.tell_repeated(finished.feedback, plan.setting.sources)
                    except OverBudget:
                        raise
                    except UserError as error:
                        failures.append({"variant": variant.name, "method": "", "stage": "", "reason": str(error)})
                        continue
                    (new / "runs" / variant.name).mkdir(parents=True)
                    run_folder.fill(new / "runs" / variant.name, finished, checkpoints=False)
                    rows.append({"variant": variant.name, **variant.labels})
                    folders.append(new / "runs" / variant.name)
                    failures += [{"variant": variant.name, **failure} for failure in finished.failures]
                    shown.advance(1)
            if not rows:
                raise Fruitless(f"no variant of {self.study.whole.name} came to an end: {failures[0]['reason']}")
            variants = pd.DataFrame(rows)
            with progress.task("aggregating"):
                tables = aggregator.aggregate(Replication(variants, folders, self.study.variants[0].experiment.seed))
            run_folder.write_config(new, describe_study(self.study.whole, self.study.origin))
            run_folder.write_tables(new, {**tables, "variants": variants})
            if failures:
                run_folder.write_tables(new, {"failures": pd.DataFrame(failures)})
            stages = [_stage(plan, n, results) for plan in self.plans[:1] for n in _made(graph, results)]
            (new / "costs.json").write_text(run_folder.costs_text(stages, {}))
            run_folder.report(new, reporter)
        return Run(self.folder, failures)


class _Watch:
    """Tells the status file, and people where many stages are made at once."""

    def __init__(self, status: StatusFile, graph: Graph, prints: bool) -> None:
        self.status, self.total, self.prints, self.count = status, len(graph), prints, 0

    def __call__(self, state: str, node: Node, failure: Failure | None) -> None:
        self.status.watch(state, node, failure)
        if state == "started":
            return
        self.count += 1
        if failure is not None and failure.because is None and failure.lacks is None:
            print(f"{node.name} failed: {failure.reason}", file=sys.stderr, flush=True)
        elif self.prints and state == "done":
            print(f"{node.name} done ({self.count} of {self.total})", file=sys.stderr, flush=True)


def _made(graph: Graph, results: Results) -> Iterable[Node]:
    return [node for key, node in graph.items() if key not in results.failures]


def _stage(plan: Plan, node: Node, results: Results) -> Made:
    return plan.artifacts.find(node.name, node.key, node.key in results.found)


def _finished(plan: Plan, results: Results) -> Finished:
    """The tables of one experiment whose stages are done.

    Raises:
        Fruitless: where a stage failed that every method needs, or every method failed.
    """
    e = plan.experiment
    setting = plan.setting
    chains: dict[str, list[Node]] = {
        name: [
            plan.node(Answers(setting, name)),
            *(plan.node(Judgement(setting, role, name)) for role in e.judges),
            *([plan.node(Dialogues(setting, name))] if e.user is not None else ()),
        ]
        for name in plan.names
    }
    failures = []
    for name, nodes in chains.items():
        failed = next((results.failures[n.key] for n in nodes if n.key in results.failures), None)
        if failed is None:
            continue
        root = results.failures[failed.because] if failed.because else failed
        failures.append({"method": name, "stage": root.node.name, "reason": root.reason, "trace": root.trace})
    kept = [name for name in chains if name not in {f["method"] for f in failures}]
    if SFT not in kept:
        first = next(f for f in failures if f["method"] == SFT)
        raise Fruitless(f"{first['stage']} failed: {first['reason']}")
    if len(kept) == 1 and e.methods:
        raise Fruitless(f"every method failed; the first: {failures[0]['stage']}: {failures[0]['reason']}")

    def table(stage: Stage, file: str) -> pd.DataFrame:
        return pd.read_parquet(plan.folder(stage) / file)

    outputs = pd.concat([table(Answers(setting, name), "outputs.parquet") for name in kept]).reset_index(drop=True)
    annotations = {
        role: pd.concat([table(Judgement(setting, role, name), "annotations.parquet") for name in kept]).reset_index(
            drop=True
        )
        for role in e.judges
    }
    talks = [table(Dialogues(setting, name), "dialogues.parquet") for name in kept if e.user is not None]
    talked = pd.concat(talks, ignore_index=True) if talks else None
    comparison = Comparison(outputs, annotations, BASELINE, e.seed, talked)
    evaluator = setting.evaluator()
    with progress.task("evaluating"):
        tables = evaluator.evaluate(comparison)
    stages = [_stage(plan, node, results) for node in _made(plan.graph, results)]
    feedback = {
        kind: feedback_with_gold(setting, plan.folder(stage), kind)
        for kind, stage in plan.feedback.items()
        if plan.node(stage).key not in results.failures
    }
    accuracy = AccuracyStage(setting)
    measured = None
    if accuracy in plan.wanted and plan.node(accuracy).key not in results.failures:
        measured = table(accuracy, "accuracy.parquet")
        tables = {**tables, "accuracy": summary(measured)}
    device = plan.device_lines
    return Finished(setting.description, stages, feedback, comparison, tables, failures, measured, device)
