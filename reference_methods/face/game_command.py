"""What `farm game` does: read a preference matrix, and play it with one method or with all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from farm.base import files, progress
from farm.base.arrays import Floats
from farm.base.errors import OptionError, brief, nearest
from farm.roles import config, named_configs
from farm.roles.protocols import Method
from reference_methods.face.options import GameOptions
from reference_methods.parts.games import problem as problems
from reference_methods.parts.games.matrix_game import (
    best_response,
    bradley_terry_scores,
    duality_gap,
    equilibrium,
    kl,
    softmax,
)
from reference_methods.parts.games.picture import SUFFIXES, Course, draw
from reference_methods.parts.games.problem import Problem
from reference_methods.parts.games.table import Table, play
from reference_methods.parts.games.training import Game

if TYPE_CHECKING:
    import pandas as pd

METHODS = (
    "nash_md",
    "nash_ema",
    "self_play",
    "online_ipo",
    "egpo",
    "inpo",
    "nash_mp",
    "dno",
    "sppo",
    "gpo",
    "spo",
    "online_dpo",
    "xpo",
)
"""The configs whose method plays games, in the order of the comparison."""

BASELINES = ("reward_model_rlhf", "one_step")
"""Closed forms that a game method must beat: a Bradley-Terry reward with a KL, and the win rate over the reference."""

ALMOST = 1e-8
"""the duality gap that counts as arrived, in the comparison"""

MOST_HISTORY = 1000

STRENGTHS = (1e-6, 1e6)
"""the smallest and the largest beta and step size that 64 bits can compute with"""

STRENGTH = 0.1
"""of the KL where methods are compared, and of a baseline"""


def played(options: GameOptions) -> Played | Compared:
    """The course of one method, drawn where a picture is asked for, or all methods."""
    problem, duels = _problem(options), _duels(options.samples)
    check_strengths(options.beta, options.step_size)
    if options.method == "all":
        if options.plot is not None:
            raise OptionError("`plot` draws one method; name it with `method` instead of `all`")
        return compared(problem, options, duels)
    if options.plot is not None:
        if options.plot.suffix.lower() not in SUFFIXES:
            raise OptionError(f"`plot` {options.plot}: pictures are written as {', '.join(SUFFIXES)}")
        files.check_out(options.plot)
    found = one(problem, options.method, options, duels)
    if options.plot is not None:
        draw(found.course, options.plot)
    return found


def _problem(options: GameOptions) -> Problem:
    given = options.preferences
    if isinstance(given, (str, Path, Mapping)) and options.reference is not None:
        raise OptionError("`reference` goes with a matrix; a file or a mapping says its own")
    if isinstance(given, (str, Path)):
        return problems.read(Path(given))
    said = given if isinstance(given, Mapping) else {"preferences": given, "reference": options.reference}
    return problems.problem({k: _plain(v) for k, v in said.items()}, "the game")


def _plain(values: Any) -> Any:
    """Arrays as the lists of a JSON file."""
    return values if values is None or isinstance(values, (str, list)) else np.asarray(values).tolist()


def check_strengths(beta: float | None, step_size: float | None) -> None:
    """Refuse what is no strength of a KL, or no size of a step."""
    least, most = STRENGTHS
    if beta is not None and not (beta == 0 or least <= beta <= most):
        raise OptionError(f"`beta` {beta:g}: the strength of a KL is 0 or a number from {least:g} to {most:g}")
    if step_size is not None and not least <= step_size <= most:
        raise OptionError(f"`step_size` {step_size:g}: it is a number from {least:g} to {most:g}")


def _duels(samples: str | int | None) -> int | None:
    if samples is None or samples == "exact":
        return None
    if not re.fullmatch("[1-9][0-9]{0,11}", said := str(samples)):
        raise OptionError(f"`samples` {brief(said, 40)}: give `exact` or a number of duels, at least 1")
    return int(said)


# --- one method -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    method: str
    beta: float
    step_size: float | None
    """None where it changes from one iteration to the next"""
    queries: int
    course: Course
    distances: Floats
    """KL(equilibrium || policy), [T + 1]"""

    def plain(self) -> dict[str, Any]:
        """As JSON: at the end, and along the way (at most about a thousand iterations of it)."""
        course, last = self.course, len(self.course.gaps) - 1
        shown = np.unique(np.linspace(0, last, min(last, MOST_HISTORY) + 1).astype(int))
        columns = {
            "duality_gap": course.gaps,
            "kl_to_equilibrium": self.distances,
            "average_duality_gap": course.average_gaps,
        }
        return {
            "method": self.method,
            "beta": self.beta,
            "step_size": self.step_size,
            "iterations": last,
            "queries": self.queries,
            "responses": course.responses,
            "policy": course.policies[-1].tolist(),
            "average_policy": course.policies.mean(0).tolist(),
            "equilibrium": course.equilibrium.tolist(),
            **{name: _finite(values[-1]) for name, values in columns.items()},
            "history": [
                {"iteration": int(t), **{name: _finite(values[t]) for name, values in columns.items()}} for t in shown
            ],
        }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def one(problem: Problem, name: str, options: GameOptions, samples: int | None) -> Played:
    """One method on one game."""
    beta, step_size, iterations = options.beta, options.step_size, options.iterations
    table = Table.of(problem.preferences, problem.reference, samples, options.seed)
    if name in BASELINES:
        strength = STRENGTH if beta is None else beta
        policies = np.stack([problem.reference, baseline(name, problem, strength)])
        return _played(name, problem, strength, None, 0, policies)
    method = _method(name, beta, step_size)
    strength = (method.beta if method.plays_regularised else 0.0) if beta is None else beta
    sizes = {method.in_table(step_size, t)[1] for t in (0, 1)}
    with progress.task(f"playing {name}", total=iterations) as work:
        policies = np.empty((iterations + 1, len(problem.reference)))
        for t, policy in enumerate(play(method, table, iterations, step_size)):
            policies[t] = policy[0]
            work.advance(min(t, 1))
    if not np.isfinite(policies[-1]).all():
        raise OptionError(f"{name}: the policy is no longer finite; take a smaller `step_size`")
    size = sizes.pop() if len(sizes) == 1 else None
    return _played(name, problem, strength, size, iterations * table.queries(method), policies)


def _method(name: str, beta: float | None, step_size: float | None) -> Game:
    if name not in named_configs.names("methods") and not name.endswith((".yaml", ".yml")):
        raise OptionError(f"`method` {name}: {nearest(name, [*METHODS, *BASELINES, 'all'])}")
    method = config.build(Method, name, origin=f"method {name}")
    if not isinstance(method, Game):
        raise OptionError(f"`method` {name}: it does not play games; {nearest(name, [*METHODS, *BASELINES, 'all'])}")
    strength = method.beta if beta is None else beta
    changes: dict[str, Any] = {"beta": strength}
    if hasattr(method, "step_size"):
        most = 1 / strength if strength else math.inf  # beyond it a step would overshoot the reference
        changes["step_size"] = min(method.table_step, most) if step_size is None else step_size
    try:
        return replace(method, **changes)
    except ValueError as error:
        raise OptionError(f"`method` {name}: {error}") from error


def baseline(name: str, problem: Problem, beta: float) -> Floats:
    """The policy of a closed-form baseline; for beta = 0 its limit, the best response to its reward."""
    if name == "one_step":
        return best_response(problem.preferences, problem.reference, beta, problem.reference)
    scores = bradley_terry_scores(problem.preferences)
    if beta == 0:
        return np.asarray(np.eye(len(scores))[scores.argmax()])
    return softmax(np.log(problem.reference) + scores / beta)


def _played(
    name: str, problem: Problem, beta: float, step_size: float | None, queries: int, policies: Floats
) -> Played:
    star = equilibrium(problem.preferences, problem.reference, beta)
    gap: Callable[[Floats], Floats] = lambda p: duality_gap(problem.preferences, problem.reference, beta, p)  # noqa: E731
    averages = np.cumsum(policies, 0) / np.arange(1, len(policies) + 1)[:, None]
    course = Course(
        f"{name}, beta {beta:g}",
        problem.responses,
        policies,
        star,
        np.asarray(gap(policies)),
        np.asarray(gap(averages)),
    )
    return Played(name, beta, step_size, queries, course, np.asarray(kl(star, policies)))


# --- all --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """Every method on the same game."""

    problem: Problem
    beta: float
    iterations: int
    rows: list[dict[str, Any]]

    def table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(self.rows)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        star = equilibrium(self.problem.preferences, self.problem.reference, self.beta)
        game = {"method": "all", "beta": self.beta, "iterations": self.iterations, "responses": self.problem.responses}
        return {**game, "equilibrium": star.tolist(), "methods": self.rows}


def compared(problem: Problem, options: GameOptions, samples: int | None) -> Compared:
    """Every method on the same game, each with its own step size unless one is given."""
    options = replace(options, beta=STRENGTH if options.beta is None else options.beta)
    rows: list[dict[str, Any]] = []
    for name in (*BASELINES, *METHODS):
        found = one(problem, name, options, samples)
        arrived = np.flatnonzero(found.course.gaps < ALMOST)
        average = found.course.policies.mean(0)
        plain = duality_gap(problem.preferences, problem.reference, 0.0, average)
        rows.append(
            {
                "method": name,
                "step_size": found.step_size,
                "duality_gap": _finite(found.course.gaps[-1]),
                "kl_to_equilibrium": _finite(found.distances[-1]),
                "iterations_to_1e-8": int(arrived[0]) if arrived.size else None,
                "plain_gap_of_average": _finite(float(plain)),
                "queries": found.queries,
                "policy": found.course.policies[-1].tolist(),
            }
        )
    return Compared(problem, options.beta or 0.0, options.iterations, rows)
