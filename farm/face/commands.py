"""The commands of the ground beside `farm run`: status, config, papers, convert, clean; the work is imported inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from farm.base.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the commands to the ``farm`` command line."""
    app.command()(status)
    app.command("config")(show_config)
    app.command()(papers)
    app.command()(convert)
    app.command()(clean)


def status(
    run: Annotated[Path, typer.Argument(help="The run folder, as `farm run` names it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say how far a run has got, while it runs or after it was interrupted.

    Example: farm status runs/pocket-s1-2f0c6b
    """
    from farm.experiments import run_status as states

    found = states.read(run)
    print(json.dumps(found, indent=1) if as_json else "\n".join(states.lines(found)))


def show_config(
    experiment: Annotated[str | None, typer.Argument(help="An experiment by name or by path.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed, as with `farm run`.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of experiments instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the resolved configuration of an experiment, with the origin of every value.

    Example: farm config pocket --set methods.ppo.beta=0.1
    """
    if schema:
        from farm.experiments.schema import experiment_schema

        print(json.dumps(experiment_schema(), indent=1))
        return
    if experiment is None:
        raise UserError("farm config: name an experiment (see `farm list experiments`), or say --schema")
    from farm.experiments import origins

    tree = origins.resolved(experiment, settings or [], seed)
    print(json.dumps(origins.plain(tree), indent=1, ensure_ascii=False) if as_json else origins.text(tree))


def papers(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/papers.md, which is made of this.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List what papers claim, and what was seen of it here when they were last run (`farm run papers/NAME`).

    Example: farm papers
    """
    from farm.experiments.claims import recorded, table

    if as_json:
        print(json.dumps(recorded.table(), indent=1))
    elif markdown:
        print(table.markdown(), end="")
    else:
        print(table.listing())


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file, or a data set of the hub: owner/name:config.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .json, .jsonl, .csv or .parquet file.")],
    to: Annotated[str | None, typer.Option(help="The format to write; that of IN where it is left out.")] = None,
    renamed: Annotated[
        list[str] | None, typer.Option("--map", metavar="NEW=OLD", help="A field, and the column of IN that it is.")
    ] = None,
) -> None:
    """Turn a set of feedback into another format: annotations, preferences, conversational, battles, annotated_pairs,
    labels, ultrafeedback, helpsteer, ratings, outputs.

    Example: farm convert annotations.json prefs.jsonl --to preferences
    """
    from farm.tables import feedback_sets

    names = {}
    for said in renamed or []:
        new, equals, old = said.partition("=")
        if not (new and equals and old):
            raise UserError(f"--map {said}: say NEW=OLD, a field of the format and the column that it is")
        names[new] = old
    print(f"{out}: {feedback_sets.convert(source, out, to, names)}")


def clean(
    days: Annotated[float, typer.Option(min=0, help="Stages that were not used for so many days.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List old artifacts and what interrupted stages left behind; with --yes remove them. Answers are always kept.

    Example: farm clean --days 7
    """
    from farm.storage import old_artifacts
    from farm.storage.store import home

    found = old_artifacts.removable(home(), days)
    size = sum(item.size for item in found)
    rows = [{"path": str(i.path), "what": i.what, "bytes": i.size, "days": round(i.days, 2)} for i in found]
    if yes:
        old_artifacts.remove(found)
    if as_json:
        print(json.dumps({"removed": yes, "bytes": size, "found": rows}, indent=1))
        return
    for item in found:
        print(f"{old_artifacts.megabytes(item.size):>10}  {item.days:>7.1f} days  {item.what:<40} {item.path.name}")
    if not found:
        print(f"{home()}: nothing is left over, and every stage was used in the last {days:g} days")
    elif yes:
        print(f"removed {len(found)} folders, {old_artifacts.megabytes(size)}")
    else:
        print(f"{len(found)} folders, {old_artifacts.megabytes(size)}; nothing is removed yet: repeat with --yes")
