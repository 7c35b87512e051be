"""The commands of the learning wing. The work is imported inside each command, so that ``farm --help`` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this wing to the ``farm`` command line."""
    app.command()(game)


def game(
    preferences: Annotated[
        Path,
        typer.Argument(help="A JSON file: `preferences` (K x K), and perhaps `reference` (K) and `responses` (K)."),
    ],
    method: Annotated[str, typer.Option(help="nash_md, egpo, inpo, ..., a YAML file, or `all` for a comparison.")],
    beta: Annotated[
        float | None, typer.Option(help="Strength of the KL; by default the method's, 0 for one without an anchor.")
    ] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Step size in units of a preference; default: the method's own.")
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of the learner.")] = 200,
    samples: Annotated[
        str, typer.Option(metavar="exact|N", help="Exact expectations, or N Bernoulli duels behind every number.")
    ] = "exact",
    seed: Annotated[int, typer.Option(help="The seed of the duels.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Draw the course: .svg, or .png and .pdf with matplotlib.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Play a preference game with K responses, and say how near each policy comes to the equilibrium.

    Example: farm game cycle.json --method egpo --beta 0.1 --plot egpo.svg
    """
    from reference_methods.face import game_command

    game_command.run(preferences, method, beta, step_size, iterations, samples, seed, plot, as_json)
