"""Preference games from Python: ``farm.game``, as the command plays them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farm.face.options import takes
from reference_methods.face.options import GameOptions

if TYPE_CHECKING:
    import pandas as pd

    from reference_methods.face.game_command import Played


@takes(GameOptions)
def game(options: GameOptions) -> Played | pd.DataFrame:
    """Play a preference game with K responses, by one method or by all of them.

    The game is a JSON file, a mapping of what stands in one, or the matrix [K, K] itself. Gives the course of one
    method (``course.policies`` [T + 1, K], ``course.gaps`` [T + 1], ``distances``, ``queries``), or a row for each
    method.

    Raises:
        UserError: for a matrix that is no game, or a method that plays none.
    """
    from reference_methods.face.game_command import Played, played

    found = played(options)
    return found if isinstance(found, Played) else found.table()
