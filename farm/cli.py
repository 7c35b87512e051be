"""The command line `farm`: the commands of the ground, and those that the wings announce through entry points.

A command raises UserError for a user's mistake; it is printed as one sentence and the exit status is 2. `--debug`
anywhere on the line shows the traceback instead.
"""

from __future__ import annotations

import json
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

import farm
from farm.base import platforms, progress
from farm.base.errors import LONGEST, REFUSED, UserError, brief, cause, installing, shadowed, show_alarms_plainly
from farm.face import commands
from farm.face.options import command
from farm.face.run_options import RunOptions
from farm.face.tables import print_table
from farm.statistics.folding import folded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from farm.experiments.claims.running import PaperRunner
    from farm.experiments.experiment import Study
    from farm.experiments.running import Run, StudyRunner

_INTERRUPTED = 130
_HELP = "Simulate human feedback, learn from it, and measure how far the result would hold with people."


def _application() -> typer.Typer:
    app = typer.Typer(name="farm", help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_options)
    app.command()(run)
    app.command("list")(list_configs)
    app.command()(doctor)
    commands.register(app)
    for entry in sorted(entry_points(group="farm.commands"), key=lambda e: e.name):
        try:
            register = entry.load()
        except Exception as error:  # a plug-in that is broken must not take the other commands with it
            if (hidden := shadowed(entry.module)) is not None:
                raise hidden from error
            _complain(f"the commands of the plug-in `{entry.name}` ({entry.value}) cannot be loaded: {error}")
            continue
        register(app)
    return app


def _version(value: bool) -> None:
    if value:
        print(f"feedback-farm {farm.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """The entry point of the command `farm`."""
    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    show_alarms_plainly()
    progress.guard_terminal()
    interrupted = _note_interrupts()
    try:
        platforms.check()
        result = _application()(args=arguments, prog_name="farm", standalone_mode=False)
        status = result if isinstance(result, int) else 0
        if status == _INTERRUPTED:  # typer makes this of Ctrl-C
            raise KeyboardInterrupt
    except BaseException as error:
        if debug and isinstance(error, Exception):
            raise
        ended = cause(error)
        if interrupted and not isinstance(ended, UserError):  # Ctrl-C in the middle of an import comes up as any error
            ended = KeyboardInterrupt()
        status = _ended(ended)
    sys.exit(status)


def _note_interrupts() -> list[int]:
    """Filled when Ctrl-C is pressed, which is raised as before."""
    seen: list[int] = []

    def noted(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, noted)
    return seen


def _ended(error: BaseException) -> int:
    """Say what ended a command, as one sentence; the exit status."""
    if isinstance(error, ModuleNotFoundError):
        from farm.hardware import machine

        error = machine.lacking(error.name or "") or error
    if isinstance(error, UserError):
        _complain(str(error))
        return error.status
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        _complain("interrupted; what is done is kept, and the same command goes on from here")
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return 141
    if isinstance(error, OSError) and error.errno in REFUSED:
        _complain(f"{error.filename or 'a file'}: {(error.strerror or str(error)).lower()}")
        return 2
    if not isinstance(error, Exception):
        raise error
    if (message := getattr(error, "format_message", None)) is not None:  # a usage error, of click or of typer's own
        if said := message():  # bare `farm` says nothing: the help is the answer
            _complain(f"{said} (see `farm --help`)")
        return 2
    # What is left is a defect of ours: say so, and how to see more.
    _complain(f"unexpected {type(error).__name__}: {error}; please report it with the output of --debug")
    return 1


def _complain(sentence: str) -> None:
    print(f"farm: {brief(sentence, LONGEST)}", file=sys.stderr)


# --- farm run ---------------------------------------------------------------------------------------------------------


@command(RunOptions)
def run(
    options: RunOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do, and what it takes.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Of a paper: keep the result beside its file, for `farm papers`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run an experiment or a paper (papers/NAME), or go on with one that was interrupted.

    Example: farm run pocket --seed 2 --set sizes.pairs=1000 --set methods.ppo.beta=0.1
    """
    from farm import api
    from farm.experiments.running import StudyRunner

    runner = api.runner(options)
    if record and isinstance(runner, StudyRunner):
        raise UserError("--record: only the result of a paper (papers/NAME) is recorded")
    if dry_run:
        foreseen = api.foreseen(runner, options)
        print(json.dumps(foreseen, indent=1) if as_json else _foreseen(foreseen, isinstance(runner, StudyRunner)))
    elif isinstance(runner, StudyRunner):
        _run_study(runner, options, as_json)
    else:
        _run_paper(runner, options, record, as_json)


def _run_study(runner: StudyRunner, options: RunOptions, as_json: bool) -> None:
    study, finished = runner.study, runner.go(options.engine, options.workers, options.limits)
    if as_json:
        rows = [] if study.whole.compute is not None else json.loads(finished.text("leaderboard"))
        report = str(finished.report) if finished.report else None
        shown: dict[str, Any] = {"run": str(finished.folder), "report": report}
        shown |= {"leaderboard": rows, "headlines": finished.headlines, "failures": list(finished.failures)}
        print(json.dumps(shown, indent=1))
    else:
        _show(finished, study)
    if finished.failures:
        _complain(_said(finished.failures, finished.folder))
        raise typer.Exit(1)


def _run_paper(runner: PaperRunner, options: RunOptions, record: bool, as_json: bool) -> None:
    """The experiments of a paper, then its claims."""
    from farm.experiments.claims import recorded, table

    finished = runner.go(options.engine, options.workers, options.limits)
    if as_json:
        print(json.dumps({"run": str(finished.folder), **finished.result.model_dump()}, indent=1))
    else:
        print(table.seen(finished.result))
        print(f"\nrun folder  {finished.folder}")
        if finished.report:
            print(f"report      {finished.report}")
    if finished.failures:
        _complain(_said(finished.failures, finished.folder / "runs" / finished.failures[0]["run"]))
        raise typer.Exit(1)
    if record:
        print(f"recorded    {recorded.record(runner.planned, finished.result)}", file=sys.stderr)


def _show(finished: Run, study: Study) -> None:
    """The result on the terminal."""
    from farm.experiments.run_folder import compact

    if study.whole.compute is not None:
        tables = sorted({path.stem for path in finished.folder.glob("**/tables/*.parquet")})
        print(f"tables      {', '.join(tables)}\nrun folder  {finished.folder}")
        return
    seed = f", {len(study.variants)} variants" if study.plural else f", seed {study.variants[0].experiment.seed}"
    board = compact(finished.leaderboard, [k for k in study.variants[0].labels if k != "seed"])
    print_table(board, f"{study.whole.name}{seed}")
    for failure in dict.fromkeys(map(_failed, finished.failures)):
        print(folded(f"failed      {failure}"))
    for headline in finished.headlines:
        print(f"\n{folded(headline)}")
    print(f"\nrun folder  {finished.folder}")
    if finished.report:
        print(f"report      {finished.report}")


def _failed(failure: Mapping[str, Any]) -> str:
    """What failed, in which setting, and why."""
    what = " of ".join(x for x in (failure["method"] or "all methods", failure.get("variant", "")) if x)
    return f"{what}: {failure['reason']}"


def _said(failures: Sequence[dict[str, Any]], folder: Path) -> str:
    """The sentence at the end of a run in which something failed."""
    first = failures[0]
    what = " of ".join(x for x in (first["method"], first.get("variant", "")) if x)
    more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"{what}{more} failed: {first['reason']}; see {folder / 'failures.csv'}, and repeat the command to try again"


def _foreseen(foreseen: dict[str, Any], single: bool) -> str:
    from farm.forecasts.forecast import text

    return folded(text(foreseen) if single else "\n\n".join(f"{run}\n{text(one)}" for run, one in foreseen.items()))


# --- farm list --------------------------------------------------------------------------------------------------------


def list_configs(
    room: Annotated[str | None, typer.Argument(help="Only one kind: annotators, methods, worlds, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what there is to use by name: methods, annotators and noise models, worlds, experiments.

    Example: farm list methods
    """
    from farm.roles import named_configs

    found = named_configs.listed(room)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, configs in found.items():
        print(f"{name}")
        width = max((len(c) for c in configs), default=0)
        for config_name, line in configs.items():
            said = f"  {config_name:<{width}}  {line}"
            print(folded(said, " " * (width + 4)) if sys.stdout.isatty() else said)  # a pipe gets a line each


# --- farm doctor ------------------------------------------------------------------------------------------------------


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Say what this machine has: versions, accelerators, and what each missing extra would enable.

    Example: farm doctor
    """
    from farm.hardware import machine

    facts = machine.facts()
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for name in ("feedback-farm", "python", "cores", "accelerator", "home"):
        print(f"{name:<16}{facts[name]}")
    for package, version in facts["packages"].items():
        print(f"{package:<16}{version or 'not installed'}")
    for extra, what in facts["missing_extras"].items():
        print(folded(f"{what}: {installing(extra)}"))
    for key, there in facts["keys"].items():
        print(f"{key:<18}{'set' if there else 'not set'}")


if __name__ == "__main__":
    main()
