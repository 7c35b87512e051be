"""The commands of the ground beside `farm run`: status, config, papers, convert, push and clean; all imports inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from farm.base.errors import UserError
from farm.face.command_options import CleanOptions, ConfigOptions, ConvertOptions, PushOptions, StatusOptions
from farm.face.options import command


def register(app: typer.Typer) -> None:
    """Add the commands to the ``farm`` command line."""
    app.command()(status)
    app.command("config")(show_config)
    app.command()(papers)
    app.command()(convert)
    app.command()(push)
    app.command()(clean)


@command(StatusOptions)
def status(
    options: StatusOptions, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False
) -> None:
    """Say how far a run has got, while it runs or after it was interrupted.

    Example: farm status runs/pocket-s1-2f0c6b
    """
    from farm.experiments import run_status as states

    found = states.read(options.run)
    print(json.dumps(found, indent=1) if as_json else "\n".join(states.lines(found)))


@command(ConfigOptions)
def show_config(
    options: ConfigOptions,
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
    if options.experiment is None:
        raise UserError("farm config: name an experiment (see `farm list experiments`), or say --schema")
    from farm.experiments import origins

    tree = origins.resolved(options.experiment, options.settings, options.seed)
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


@command(ConvertOptions)
def convert(
    options: ConvertOptions,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .json, .jsonl, .csv or .parquet file.")],
) -> None:
    """Turn a set of feedback into another format: annotations, preferences, conversational, hh, battles, sheets,
    annotated_pairs, labels, ultrafeedback, helpsteer, ratings, completions, messages, outputs, and the other kinds.

    Example: farm convert annotations.json prefs.jsonl --to preferences
    """
    from farm.tables import feedback_sets

    print(f"{out}: {feedback_sets.convert(options.source, out, options.to, options.renamed)}")


@command(PushOptions)
def push(
    options: PushOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card and the files, and push nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Push a run's tables, one of its models, or a set of feedback to the hub, with a card; without --yes show them.

    Example: farm push runs/pocket-s1-2f0c6b/checkpoints/dpo me/pocket-dpo --license apache-2.0
    """
    from farm.publishing import package

    found = package.push(
        options.source,
        options.repository,
        license_name=options.license,
        public=options.public,
        yes=options.yes and not dry_run,
    )
    if as_json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    if found["address"] is None:
        print(found["card"])
    for name, size in found["files"].items():
        print(f"{size:>13,}  {name}")
    seen = "public" if options.public else "private"
    ready = f"nothing is pushed; with --yes it goes to the {found['kind']} {options.repository}, {seen} if it is new"
    print(found["address"] or ready)


@command(CleanOptions)
def clean(
    options: CleanOptions, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False
) -> None:
    """List old artifacts and what interrupted stages left behind; with --yes remove them. Answers are always kept.

    Example: farm clean --days 7
    """
    from farm.storage import old_artifacts
    from farm.storage.store import home

    found = old_artifacts.removable(home(), options.days)
    size = sum(item.size for item in found)
    rows = [{"path": str(i.path), "what": i.what, "bytes": i.size, "days": round(i.days, 2)} for i in found]
    if options.yes:
        old_artifacts.remove(found)
    if as_json:
        print(json.dumps({"removed": options.yes, "bytes": size, "found": rows}, indent=1))
        return
    for item in found:
        print(f"{old_artifacts.megabytes(item.size):>10}  {item.days:>7.1f} days  {item.what:<40} {item.path.name}")
    if not found:
        print(f"{home()}: nothing is left over, and every stage was used in the last {options.days:g} days")
    elif options.yes:
        print(f"removed {len(found)} folders, {old_artifacts.megabytes(size)}")
    else:
        print(f"{len(found)} folders, {old_artifacts.megabytes(size)}; nothing is removed yet: repeat with --yes")
