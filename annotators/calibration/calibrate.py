"""`farm calibrate`: a file of many people's votes in, the YAML of a crowd that votes like them out, with its fit.

votes ─▶ noise of the splits ─▶ competence of each annotator ─▶ groups (EM) ─▶ moments ─▶ YAML
                                                                           └▶ simulated votes, the same statistics
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from annotators.calibration import published, retest
from annotators.calibration.ballots import TIE, Ballots, ballots
from annotators.calibration.check import check_lines, compared, crowd_of, simulated, statistics
from annotators.calibration.mixture import best, fit
from annotators.calibration.moments import matched
from annotators.people.crowd import Group
from farm.base import files, progress
from farm.base.errors import OptionError, UserError
from farm.statistics.result import Result
from farm.statistics.uncertainty import Estimate
from farm.votes.competence import Votes, dawid_skene, glad
from farm.votes.noise import NoiseEstimate, estimate_noise, flip_from_agreement
from farm.votes.table import read_votes

_FOR_GROUPS = 12_000
"""votes on which the groups are fitted"""
_FOR_GLAD = 30_000
ENOUGH = 20
"""votes from which on one annotator's competence is reported"""


@dataclass(frozen=True)
class Calibration(Result):
    """What the votes said, the crowd, and how well it does."""

    origin: str
    votes: int
    pairs: int
    annotators: int
    groups: tuple[Group, ...]
    length_scale: float
    utility_scale: float
    opinion_spread: float
    tie_spread: float
    noise: NoiseEstimate | None
    """fits of the vote splits"""
    flip: float
    """constant flip rate that the agreement of votes implies"""
    against: int
    """that agreement is one vote against so many others"""
    competence: dict[str, Any]
    people: pd.DataFrame
    """competence of each annotator with enough votes"""
    test_retest: Estimate | None
    check: pd.DataFrame
    """people beside the crowd"""

    @property
    def spread(self) -> float:
        """Difficulty: standard deviation of the margins, in logits, averaged over the votes."""
        share = np.array([g.share for g in self.groups])
        return float(share @ [g.spread for g in self.groups] / share.sum())

    @property
    def temperature(self) -> float:
        """Margins of the usual size in one logit."""
        return 1 / self.spread if self.spread else float("inf")

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        plain["groups"] = [g.model_dump() for g in self.groups]
        return {**plain, "spread": self.spread, "temperature": self.temperature}

    def yaml(self) -> str:
        """The crowd as a config for `farm annotate` and `farm run`."""
        spec: dict[str, Any] = {
            "about": f"a crowd calibrated on {self.votes:,} votes of {Path(self.origin).name}",
            "class": "annotators.people.crowd.Crowd",
            "name": Path(self.origin).name.split(".")[0],
            "size": 50,
            "length_scale": round(self.length_scale, 2),
            "utility_scale": round(self.utility_scale, 4),
            "opinion_spread": round(self.opinion_spread, 4),
            "tie_spread": self.tie_spread,
            "groups": [g.model_dump() for g in self.groups],
        }
        check = "".join(f"# {line}\n" for line in check_lines(self.check))
        heading = f"# Written by `farm calibrate {Path(self.origin).name}`. People beside this crowd:\n"
        return heading + check + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=120)


def calibrate(path: Path, *, annotator: str = "", pairs: Path | None = None, groups: int | None = None) -> Calibration:
    """The crowd of a file of votes, or of a row of an evaluators leaderboard.

    Args:
        annotator: only votes of annotators whose name contains this; the row of a leaderboard (default "humans").
        pairs: for a leaderboard, the pairs that were judged.
        groups: how many groups of people; by default as many as the votes tell apart, at most three.

    Raises:
        UserError: for a file that says nothing about noise.
    """
    files.check(path)
    if published.is_published(path):
        return _of_row(path, annotator or "humans", pairs)
    if pairs is not None:
        raise OptionError(f"{path} has the votes themselves; `pairs` is for a row of an evaluators leaderboard")
    return of_votes(of_annotator(read_votes(path), annotator, str(path)), str(path), groups=groups)


def of_annotator(votes: pd.DataFrame, name: str, origin: str) -> pd.DataFrame:
    """The votes of annotators whose name contains ``name``."""
    found = votes[votes["annotator"].str.contains(name, regex=False)] if name else votes
    if found.empty:
        raise UserError(f"{origin}: no annotator is called {name!r}")
    return found


def check_out(out: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse a file of another kind, or one that cannot be written, before the work."""
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"{out}: the crowd is written as .yaml")
    files.check_out(out, inputs)


def write(found: Calibration, out: Path) -> None:
    """The crowd as a file."""
    files.write_text(out, found.yaml())


def of_votes(votes: pd.DataFrame, origin: str, *, groups: int | None = None) -> Calibration:
    """The crowd of a table of votes (farm/votes/table.py)."""
    given = ballots(votes, origin)
    for_groups = given.part(_FOR_GROUPS)
    ties = bool((given.answer == TIE).any())
    people = statistics(given.table)
    progress.step("telling groups apart")
    found = (best(for_groups) if groups is None else fit(for_groups, groups)).groups(ties)
    progress.step("matching the people's statistics")
    found, tie_spread = matched(given, found, people)
    again = retest.with_oneself(given.table)
    opinion = 0.0
    # With one annotator a lasting opinion cannot be separated from shared quality; a difference must exceed its error.
    if again.n >= ENOUGH and len(given.names) > 1 and again.low > retest.agreements(found, 1.0, 0.0)[1]:
        scale, opinion = retest.opinions(found, again.value)
        found = [g.model_copy(update={"spread": round(g.spread * scale, 4)}) for g in found]
    crowd = crowd_of(given, found, tie_spread=tie_spread, opinion_spread=opinion)
    progress.step("competence of the annotators, and the check")
    noise = estimate_noise(given.table["item"], given.table["first"])
    summary, each = _competence(given)
    return Calibration(
        origin, len(given.item), given.items, len(given.names), tuple(found), given.length_scale, given.utility_scale,
        opinion, tie_spread, noise, noise.flip_one_against_one, 1, summary, each, again if again.n else None,
        compared(given, crowd),
    )  # fmt: skip


def _competence(given: Ballots) -> tuple[dict[str, Any], pd.DataFrame]:
    """Dawid and Skene, and GLAD, on decisive votes: a summary, and a row for each annotator with enough votes."""
    decisive = given.answer != TIE
    item, who, label = given.item[decisive], given.annotator[decisive], (given.answer[decisive] > TIE).astype(np.int64)
    number = np.bincount(who, minlength=len(given.names))
    enough = np.flatnonzero(number >= ENOUGH)
    if not enough.size or len(given.names) < 2:
        return {"annotators_rated": 0}, pd.DataFrame(columns=["annotator", "votes", "accuracy", "ability"])
    rated = Votes.of(item, who, label)
    names = np.unique(who)
    accuracy = pd.Series(dawid_skene(rated, smoothing=1.0).accuracy, names)
    few = given.part(_FOR_GLAD)
    kept = few.answer != TIE
    ability = pd.Series(dtype=float)
    if kept.any():
        found = glad(Votes.of(few.item[kept], few.annotator[kept], (few.answer[kept] > TIE).astype(np.int64)))
        ability = pd.Series(found.ability, np.unique(few.annotator[kept]))
    table = pd.DataFrame({
        "annotator": [given.names[k] for k in enough], "votes": number[enough],
        "accuracy": accuracy[enough].to_numpy(), "ability": ability.reindex(enough).to_numpy(),
    }).sort_values("accuracy", ascending=False, ignore_index=True)  # fmt: skip
    low, middle, high = np.quantile(table["accuracy"], [0.1, 0.5, 0.9])
    summary = {
        "annotators_rated": len(table), "accuracy_10": float(low), "accuracy_median": float(middle),
        "accuracy_90": float(high), "below_chance": int((table["accuracy"] < 0.5).sum()),
        "negative_ability": int((table["ability"] < 0).sum()),
    }  # fmt: skip
    return summary, table


def _of_row(path: Path, name: str, pairs: Path | None) -> Calibration:
    row = published.read_row(path, name)
    given = None if pairs is None else published.blank_ballots(pairs)
    group = published.solve(row, given)
    check = pd.DataFrame(columns=["statistic", "people", "low", "high", "crowd", "inside"])
    if given is not None:
        check = _row_check(row, given, group)
    scales = (given.length_scale, given.utility_scale) if given is not None else (15.0, 1.0)
    empty = pd.DataFrame(columns=["annotator", "votes", "accuracy", "ability"])
    return Calibration(
        str(path), 4 * (given.items if given else 648), given.items if given else 648, 0, (group,), *scales, 0.0, 0.0,
        None, flip_from_agreement(row.agreement, 3), 3, {"annotators_rated": 0}, empty, None, check,
    )  # fmt: skip


def _row_check(row: published.Row, given: Ballots, group: Group, rounds: int = 12) -> pd.DataFrame:
    """The row beside simulated votes; intervals are the spread of the simulations, as the row has none."""
    runs = [statistics(simulated(given, crowd_of(given, [group]), seed)) for seed in range(rounds)]
    known = {
        "agreement (AlpacaEval)": (row.agreement, [1 - r["variance (AlpacaEval)"].value for r in runs]),
        "variance (AlpacaEval)": (1 - row.agreement, [r["variance (AlpacaEval)"].value for r in runs]),
        "prefers the first shown": (row.first, [r["prefers the first shown"].value for r in runs]),
        "prefers the longer": (row.longer, [r["prefers the longer"].value for r in runs]),
        "prefers lists": (row.lists, [r["prefers lists"].value for r in runs]),
    }
    rows = []
    for name, (people, ours) in known.items():
        half = 1.96 * float(np.std(ours, ddof=1))
        middle = float(np.mean(ours))
        rows.append((name, people, people - half, people + half, middle, abs(middle - people) <= half))
    return pd.DataFrame(rows, columns=["statistic", "people", "low", "high", "crowd", "inside"])
