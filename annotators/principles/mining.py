"""`farm principles`: a file of votes in, the constitution that they seem to follow out, and how far it holds.

votes ─▶ one label a pair (majority) ─┬▶ principles proposed, voted on, filtered ─▶ constitution ─▶ YAML
                                      └▶ held out ─▶ how often it agrees with votes, and a judge without it
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from annotators.llm.annotator import LLMAnnotator
from annotators.people.logit import LogitAnnotator
from annotators.principles.by_llm import LLMProposer, LLMVoter
from annotators.principles.constitution import Constitution
from farm.asking.ask import ask
from farm.asking.limits import Limits
from farm.asking.purse import limited
from farm.base import files, progress, rng
from farm.base.arrays import Floats
from farm.base.bounds import Share
from farm.base.errors import OptionError, UserError
from farm.feedback.pairs import KIND as PAIRS
from farm.roles.protocols import Annotator, Features
from farm.statistics.result import Result
from farm.statistics.uncertainty import DIFFERENCE, SHARE, Estimate, mean
from farm.tables.formats import merge_input
from farm.tables.turns import kept
from farm.votes import predicates
from farm.votes.agreement import leave_one_out
from farm.votes.predicates import Predicate
from farm.votes.principles import Mining, alike, chosen, counted

PROGRAM = "text features"
"""who judges where nobody is named: the features' own weights, without a draw"""


@dataclass(frozen=True)
class Principles(Result):
    """A constitution, and how far it reconstructs votes that it was not read off; agreements are fractions."""

    origin: str
    votes: int
    """decisive ones"""
    annotators: int
    read_off: int
    """pairs"""
    held_out: int
    """pairs"""
    judge: str
    """who is held beside it, and who proposed and voted where that is a language model"""
    principles: pd.DataFrame
    """principle, votes_for, against, abstain, invalid; the most important first"""
    constitution: Estimate
    """agreement of its verdicts with held-out votes; a pair that it does not decide counts one half"""
    default: Estimate
    """the judge's own agreement with them"""
    difference: Estimate
    ceiling: Estimate
    """agreement of a held-out vote with the majority of the others on its pair"""
    undecided: float
    """share of held-out pairs to which no principle applies"""
    unanswered: int
    """held-out votes left out because one of the two gave no verdict"""
    spec: dict[str, Any]
    """the constitution as an annotator"""

    def table(self) -> pd.DataFrame:
        """One row a principle."""
        return self.principles

    def yaml(self) -> str:
        """The constitution as a config for `farm annotate` and `farm run`."""
        who, n = " ".join(self.judge.split()), self.constitution.n
        said = (
            f"# Written by `farm principles {Path(self.origin).name}`. Agreement with {n:,} votes that were held out:\n"
        )
        shown = f"# constitution {self.constitution.value:.3f}, {who} {self.default.value:.3f}\n"
        return said + shown + yaml.safe_dump(self.spec, sort_keys=False, allow_unicode=True, width=120)


def check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse a file of another kind, or one that cannot be written, before the work."""
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"{out}: the constitution is written as .yaml")
    files.check_out(out, inputs)


def find(
    votes: pd.DataFrame,
    origin: str,
    features: Features,
    judge: Annotator | None,
    mining: Mining,
    *,
    held_out: Share,
    seed: int,
    limits: Limits | None = None,
    confidence: float = 0.95,
) -> Principles:
    """The principles of a table of votes (:mod:`farm.votes.table`).

    Args:
        judge: held beside the constitution; a language model proposes and votes, too. None is :data:`PROGRAM`.
        held_out: share of the pairs on whose votes both are measured.

    Raises:
        UserError: without texts, with too few decided pairs, or where no principle is kept.
    """
    ballots, pairs = _decisive(votes, origin)
    ids = rng.text_ids([str(item) for item in pairs.index])
    away = rng.uniform(seed, "held out of principles", ids) < held_out
    share = ballots.groupby("item")["first"].mean().reindex(pairs.index).to_numpy(np.float64)
    labels = np.sign(share - 0.5)
    used = ~away & (labels != 0)
    if not used.any() or not away.any():
        raise UserError(
            f"{origin}: {len(pairs)} pairs with a decisive vote are too few to read principles off and to test"
        )
    judge = judge or LogitAnnotator(features, name=PROGRAM, greedy=True)
    with limited(replace(limits or Limits(), whole=True)):
        read_off = pairs[used].reset_index(drop=True)
        constitution: Constitution | LLMAnnotator
        if isinstance(judge, LLMAnnotator):
            principles, constitution = _by_model(judge, read_off, labels[used], mining, seed)
        else:
            principles, constitution = _by_features(features, read_off, labels[used], ids[used], mining, seed)
        tested = pairs[away].reset_index(drop=True)
        said = {}
        for name, annotator in (("constitution", constitution), ("default", judge)):
            progress.step(f"{name} on {len(tested):,} held-out pairs")
            said[name] = 2 - ask(PAIRS, annotator, tested, seed=seed)["preference"].to_numpy(np.float64)
    rows = pd.Index(pairs.index[away]).get_indexer(ballots["item"])
    ours, theirs = (np.where(rows < 0, np.nan, np.sign(said[name] - 0.5)[rows] / 2 + 0.5) for name in said)
    known = ~(np.isnan(ours) | np.isnan(theirs))
    vote, item = ballots["first"].to_numpy(np.float64), ballots["item"].to_numpy()
    agreed = {name: 1 - np.abs(vote - verdict)[known] for name, verdict in (("ours", ours), ("theirs", theirs))}
    about = f"principles read off {int(used.sum()):,} pairs of {Path(origin).name}"
    return Principles(
        origin=origin,
        votes=len(ballots),
        annotators=int(ballots["annotator"].nunique()),
        read_off=int(used.sum()),
        held_out=int(away.sum()),
        judge=str(getattr(judge, "name", type(judge).__name__)),
        principles=principles,
        constitution=mean(agreed["ours"], item[known], confidence=confidence, bounds=SHARE),
        default=mean(agreed["theirs"], item[known], confidence=confidence, bounds=SHARE),
        difference=mean(agreed["ours"] - agreed["theirs"], item[known], confidence=confidence, bounds=DIFFERENCE),
        ceiling=leave_one_out(item[rows >= 0], vote[rows >= 0], confidence=confidence).agreement,
        undecided=float(np.mean(said["constitution"] == 0.5)),
        unanswered=int((rows >= 0).sum() - known.sum()),
        spec={"about": about, **spec_of(constitution)},
    )


def _decisive(votes: pd.DataFrame, origin: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The decisive votes, and the pairs they are on in canonical order, by item."""
    missing = [c for c in ("instruction", "output_1", "output_2") if c not in votes]
    if missing:
        raise OptionError(
            f"{origin}: principles are read off texts, and `{missing[0]}` is missing; give them with `pairs`"
        )
    first = votes["first"].to_numpy(np.float64)
    votes = merge_input(votes)[~np.isnan(first) & (first != 0.5)].reset_index(drop=True)
    flipped = votes["flipped"].to_numpy(bool)
    one, two = (votes[c].astype(str).to_numpy(object) for c in ("output_1", "output_2"))
    sides = {"output_1": np.where(flipped, two, one), "output_2": np.where(flipped, one, two)}
    pairs = votes[["item", *kept(votes)]].assign(**sides).drop_duplicates("item").set_index("item")
    return votes, pairs.assign(generator_1="", generator_2="")


def _by_features(
    features: Features, pairs: pd.DataFrame, labels: Floats, ids: rng.Ids, mining: Mining, seed: int
) -> tuple[pd.DataFrame, Constitution]:
    """Predicates of the features."""
    progress.step(f"reading principles off {len(pairs):,} pairs")
    found = predicates.differences(features, pairs)
    principles, counts = predicates.mined(features, found, labels, ids, mining, seed=seed)
    _require(principles, pairs)
    counts.insert(0, "principle", [p.says for p in principles])
    return counts, Constitution(features, principles, mining.rule)


def _by_model(
    judge: LLMAnnotator, pairs: pd.DataFrame, labels: Floats, mining: Mining, seed: int
) -> tuple[pd.DataFrame, LLMAnnotator]:
    """Sentences of a language model, which also says what each selects, and judges by them."""
    who = {k: getattr(judge, k) for k in ("model", "base_url", "key", "temperature", "effort", "store")}
    one, two = (pairs[column].to_numpy(object) for column in ("output_1", "output_2"))
    shown = pairs.assign(output_1=np.where(labels > 0, one, two), output_2=np.where(labels > 0, two, one))
    progress.step(f"proposals from {len(pairs):,} pairs")
    candidates = alike(LLMProposer(**who).propose(shown, each=mining.per_pair, seed=seed), mining.clusters)
    _require(candidates, pairs)
    progress.step(f"votes of {len(candidates)} principles on {len(pairs):,} pairs")
    votes = LLMVoter(**who).votes(shown, candidates, seed=seed)
    rows = chosen(votes, mining)
    _require(rows, pairs)
    sentences, counts = tuple(candidates[row] for row in rows), counted(votes[:, rows])
    counts.insert(0, "principle", list(sentences))
    name = f"{judge.name} by principles"
    return counts, replace(judge, prompt="constitution", principles=sentences, batch=1, name=name)


def _require(principles: Sized, pairs: pd.DataFrame) -> None:
    if not len(principles):
        raise OptionError(f"no principle explains the labels of these {len(pairs):,} pairs; lower `least`")


def spec_of(annotator: Constitution | LLMAnnotator) -> dict[str, Any]:
    """The annotator as a YAML says it: its class, and the settings that are not the class's own."""
    kind = type(annotator)
    own = {f.name: v for f in fields(annotator) if (v := getattr(annotator, f.name)) != f.default}
    own["principles"] = [p.model_dump() if isinstance(p, Predicate) else p for p in annotator.principles]
    kept_out = ("features", "store")  # the program supplies them
    return {"class": f"{kind.__module__}.{kind.__qualname__}", **{k: v for k, v in own.items() if k not in kept_out}}
