"""What `farm game` prints: the course of one method, or a row for each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from reference_methods.face.game_command import Compared, Played, played
from reference_methods.face.options import GameOptions


def run(options: GameOptions, as_json: bool) -> None:
    """Play and print."""
    import torch

    torch.set_num_threads(1)  # tables are so small that sharing them among threads only costs
    found = played(options)
    if as_json:
        print(json.dumps(found.plain(), indent=1))
    elif isinstance(found, Played):
        show(found, options.plot)
    else:
        show_all(found)


def show(found: Played, plot: Path | None) -> None:
    """On the terminal: policies side by side, and the distances along the way."""
    console, course = Console(), found.course
    game = "the plain game" if found.beta == 0 else f"the game with beta {found.beta:g}"
    step = "" if found.step_size is None else f", step size {found.step_size:g}"
    policies = Table(title=f"{found.method} in {game}{step}", title_justify="left", header_style="bold")
    policies.add_column("response")
    columns = {
        "reference": course.policies[0],
        "policy": course.policies[-1],
        "average": course.policies.mean(0),
        "equilibrium": course.equilibrium,
    }
    for name in columns:
        policies.add_column(name, justify="right")
    for k, response in enumerate(course.responses):
        policies.add_row(response, *(f"{values[k]:.6f}" for values in columns.values()))
    console.print(policies, markup=False)
    along = Table(header_style="bold")
    for name in ("iteration", "duality gap", "KL to equilibrium", "gap of average"):
        along.add_column(name, justify="right")
    last = len(course.gaps) - 1
    for t in sorted({0, 1, last, *(round(10**e) for e in np.arange(0.5, math.log10(max(last, 1)), 0.5))}):
        if t <= last:
            numbers = course.gaps[t], found.distances[t], course.average_gaps[t]
            along.add_row(str(t), *(f"{x:.3e}" for x in numbers))
    console.print(along)
    if found.queries:
        print(f"{found.queries} duels were asked")
    if plot is not None:
        print(f"picture  {plot}")


def show_all(found: Compared) -> None:
    """On the terminal: a row a method."""
    title = f"{found.iterations} iterations, beta {found.beta:g}"
    shown = Table(title=title, title_justify="left", header_style="bold")
    shown.add_column("method", no_wrap=True)
    for name in ("step", "gap", "KL", "to 1e-8", "average*", "duels"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        step, arrived_at = row["step_size"], row["iterations_to_1e-8"]
        shown.add_row(
            str(row["method"]),
            "" if step is None else f"{step:g}",
            *(_scientific(row[key]) for key in ("duality_gap", "kl_to_equilibrium")),
            "never" if arrived_at is None else str(arrived_at),
            _scientific(row["plain_gap_of_average"]),
            str(row["queries"] or ""),
        )
    Console().print(shown)
    print("gap, KL: duality gap and KL(equilibrium || policy) of the last policy; to 1e-8: iterations until that gap")
    print("* duality gap of the average policy in the game without KL, which is what methods without an anchor play")


def _scientific(value: Any) -> str:
    return "infinite" if value is None else f"{value:.2e}"
