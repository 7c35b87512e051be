"""A user's replies within the limits in force (:mod:`farm.asking.purse`).

A user who asks language models through ours keeps to a budget by itself, question by question. What a reply of any
other one costs is known when it is there: so one is asked for first, and from then on the replies of a turn are asked
for together, where the budget has room for all of them at the highest price that was seen.

What was paid for is not asked again: a stage that was killed finds the replies in its folder (:class:`KeptUser`), and
they count against the budget as they did. Beside the replies of a user who asks language models stands which questions
were counted with them, so that one that comes again counts once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from farm.asking import purse
from farm.asking.givers import is_free, keeps_answers
from farm.asking.limits import OverBudget
from farm.asking.purse import Purse
from farm.base import files
from farm.roles import users
from farm.roles.users import User
from farm.storage.store import address


class _Highest:
    """The highest price of a reply so far, US dollars; None before the first."""

    def __init__(self, of: Purse) -> None:
        self.of, self.price = of, None if of.limits.budget is not None else 0.0

    def close(self) -> None:
        """Nothing is open."""

    def seen(self, table: pd.DataFrame) -> None:
        self.price = max(self.price or 0.0, float(table["price"].max()))

    def paid(self, table: pd.DataFrame) -> None:
        self.seen(table)
        self.of.ledger.settle(0.0, float(table["price"].sum()))


def replies(user: User, shown: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The user's replies to the rows that are shown, in their order.

    Raises:
        OverBudget: where the budget has no room for them; it tells what they would cost, about.
        UserError: where the user does not answer as its role says.
    """
    if isinstance(user, KeptUser):
        return user.replies(shown, seed)
    known = _highest(user)
    if known is None or not len(shown):
        return users.replies(user, shown, seed=seed)
    budget, parts = known.of.limits.budget, list[pd.DataFrame]()
    if known.price is None:
        _require(known, budget, 1)
        parts.append(users.replies(user, shown.iloc[:1], seed=seed))
        known.paid(parts[0])
    if rest := len(shown) - len(parts):
        _require(known, budget, rest)
        parts.append(users.replies(user, shown.iloc[len(parts) :].reset_index(drop=True), seed=seed))
        known.paid(parts[-1])
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


class KeptUser:
    """A user whose replies are kept in a folder of the stage, a file each time it is asked, until the stage is done.

    Args:
        folder: what is in it was paid for by an earlier attempt, and counts at once.
    """

    def __init__(self, user: User, folder: Path) -> None:
        self.user, self.folder = user, folder
        whole = sorted(folder.glob("[!.]*.parquet"))  # what a kill left half written begins with a point
        if (current := purse.current()) is None:
            return
        known = _highest(user)
        for file in whole:
            table, counted = pd.read_parquet(file), file.with_suffix(".json")
            for key, price in json.loads(counted.read_text()).items() if counted.exists() else ():
                current.ledger.known(bytes.fromhex(key), price)
            if not counted.exists():
                current.ledger.settle(0.0, float(table["price"].sum()))
            if known is not None:
                known.seen(table)

    def reply(self, episodes: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        """As :meth:`farm.roles.users.User.reply`, kept."""
        return replies(self, episodes, seed=seed)

    def replies(self, shown: pd.DataFrame, seed: int) -> pd.DataFrame:
        """Those that are kept, or else the user's, which are from now on."""
        file, first = self._file(shown, seed), shown.iloc[:1]
        if not file.exists():
            known = _highest(self.user)
            unpriced = known is not None and known.price is None
            if len(shown) > 1 and (unpriced or self._file(first, seed).exists()):  # one by itself tells the price
                parts = [self.replies(part.reset_index(drop=True), seed) for part in (first, shown.iloc[1:])]
                return pd.concat(parts, ignore_index=True)
            current = purse.current() if keeps_answers(self.user) else None
            before = set() if current is None else set(current.ledger.counted)
            table = replies(self.user, shown, seed=seed)
            if current is not None:
                counted = {key.hex(): price for key, price in current.ledger.counted.items() if key not in before}
                files.write_text(file.with_suffix(".json"), json.dumps(counted))
            with files.replacing(file) as new:
                table.to_parquet(new, index=False)
        return pd.read_parquet(file)

    def _file(self, shown: pd.DataFrame, seed: int) -> Path:
        return self.folder / f"{address(seed, shown.to_json(orient='split')).hex()}.parquet"


def kept(user: User, folder: Path) -> User:
    """The user, whose replies are kept there if they cost something."""
    return user if is_free(user) else KeptUser(user, folder)


def _highest(user: User) -> _Highest | None:
    current = purse.current()
    return None if current is None or is_free(user) or keeps_answers(user) else current.kept(_Highest)


def _require(known: _Highest, budget: float | None, rows: int) -> None:
    if budget is None:
        return
    needed, spent = (known.price or 0.0) * rows, known.of.spent
    if spent + needed > budget + 1e-9 or (known.price is None and spent >= budget):
        raise OverBudget(needed)
