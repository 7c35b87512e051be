"""Preference games from Python: ``farm.game``, as the command plays them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from farm.base.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from reference_methods.face.game_command import Played


def game(
    preferences: Any,
    method: str = "all",
    *,
    reference: Any = None,
    beta: float | None = None,
    step_size: float | None = None,
    iterations: int = 200,
    samples: int | None = None,
    seed: int = 0,
    plot: str | Path | None = None,
) -> Played | pd.DataFrame:
    """Play a preference game with K responses, by one method or by all of them.

    Args:
        preferences: a JSON file, a mapping of what stands in one, or the matrix [K, K] itself.
        reference: probabilities [K], with a matrix; uniform by default.
        samples: duels behind every number; None for exact expectations.
        plot: draw the course of one method here.

    Returns:
        the course of one method (``course.policies`` [T + 1, K], ``course.gaps`` [T + 1], ``distances``, ``queries``),
        or a row for each method where ``method`` is "all".

    Raises:
        UserError: for a matrix that is no game, or a method that plays none.
    """
    from reference_methods.face import game_command as playing
    from reference_methods.parts.games import problem as games_problem
    from reference_methods.parts.games.picture import draw

    if isinstance(preferences, (str, Path, Mapping)) and reference is not None:
        raise UserError("farm.game: `reference` goes with a matrix; a file or a mapping says its own")
    if isinstance(preferences, (str, Path)):
        problem = games_problem.read(Path(preferences))
    elif isinstance(preferences, Mapping):
        problem = games_problem.problem({k: _plain(v) for k, v in preferences.items()}, "the game")
    else:
        problem = games_problem.problem(
            {"preferences": _plain(preferences), "reference": _plain(reference)}, "the game"
        )
    playing.check_strengths(beta, step_size)
    if iterations < 1 or (samples is not None and samples < 1):
        raise UserError("farm.game: `iterations` and `samples` are at least 1")
    if method == "all":
        import pandas as pd

        if plot is not None:
            raise UserError("farm.game: `plot` draws one method; name it instead of `all`")
        strength = 0.1 if beta is None else beta
        return pd.DataFrame(playing.compared(problem, strength, step_size, iterations, samples, seed))
    if plot is not None:
        playing.check_picture(Path(plot))
    found = playing.one(problem, method, beta, step_size, iterations, samples, seed)
    if plot is not None:
        draw(found.course, Path(plot))
    return found


def _plain(values: Any) -> Any:
    """Arrays as the lists of a JSON file."""
    return values if values is None or isinstance(values, (str, list)) else np.asarray(values).tolist()
