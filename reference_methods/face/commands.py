"""The commands of the learning wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from farm.face.options import command
from reference_methods.face.options import GameOptions


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(game)


@command(GameOptions)
def game(
    options: GameOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Play a preference game with K responses, and say how near each policy comes to the equilibrium.

    Example: farm game cycle.json --method egpo --beta 0.1 --plot egpo.svg
    """
    from reference_methods.face import game_tables

    game_tables.run(options, as_json)
