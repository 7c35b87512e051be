"""The commands ``farm report`` and ``farm compare``. The work is imported inside, so that ``farm --help`` is quick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eval.face.options import CompareOptions, ReportOptions
from farm.base.errors import OptionError
from farm.face.options import command

if TYPE_CHECKING:
    from eval.report.compare import RunComparison


def register(app: typer.Typer) -> None:
    """Add the commands to the ``farm`` command line."""
    app.command()(report)
    app.command()(compare)


@command(ReportOptions)
def report(
    options: ReportOptions,
    show: Annotated[bool, typer.Option("--open", help="Open the report in the web browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the report of a run again, from the files of its folder alone.

    Example: farm report runs/pocket-s1-2f0c6b --open
    """
    import json

    path = reported(options)
    print(json.dumps({"run": str(options.run), "report": str(path)}) if as_json else path)
    if show:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def reported(options: ReportOptions) -> Path:
    """Where the report was written."""
    from eval.report.html import Html
    from farm.experiments.run_tables import settings

    wanted = options.examples
    configured = settings(options.run)[1].get("reporter")
    # Only our own reporter's settings are taken over: a run folder may come from anyone; no class is loaded from it.
    if wanted is None and isinstance(configured, dict) and configured.get("class") == "eval.report.html.Html":
        found = configured.get("examples")
        wanted = found if isinstance(found, int) and found >= 0 else None
    return (Html() if wanted is None else Html(examples=wanted)).write(options.run)


@command(CompareOptions)
def compare(
    options: CompareOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Two runs side by side: settings that differ, differences of win rates, changes of rank.

    Example: farm compare runs/pocket-s1-2f0c6b runs/pocket-s2-77ab01
    """
    path = options.out or Path(f"compare-{options.first.resolve().name}-{options.second.resolve().name}.html")
    found = compared(replace(options, out=path))
    typer.echo(found.to_json() if as_json else str(found))
    typer.echo(f"written: {path}", err=True)


def compared(options: CompareOptions) -> RunComparison:
    """The comparison, and its page where one is asked for."""
    from eval.report import compare as comparing
    from farm.base import files

    page = options.out
    if page is not None:
        if page.suffix != ".html":
            raise OptionError(f"`out` {page}: the page is a file that ends in .html")
        files.check_out(page)
    found, one, two = comparing.compare(options.first, options.second)
    if page is not None:
        comparing.write(found, one, two, page)
    return found
