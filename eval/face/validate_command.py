"""What ``farm validate`` does: one judge against humans or alone, or a table of judge runs that carry labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from eval.judges.judge_runs import JudgeRuns, audit_runs
from eval.judges.validate import validate
from eval.published.annotated_pairs import check_export, write_annotated_pairs
from eval.rates.habits import judge_alone
from farm.base.errors import UserError, nearest
from farm.statistics.result import Result
from farm.tables.formats import merge_input, read_table
from farm.votes.table import from_table, read_votes


def run(
    judge: Path,
    human: Path | None,
    by: str | None,
    rounds: int,
    seed: int,
    confidence: float,
    *,
    annotator: str | None = None,
    pool: bool = False,
    pairs: Path | None = None,
    export: Path | None = None,
) -> Result:
    """What the files say; the arguments are those of the command."""
    if export is not None:
        check_export(export, (judge, human, pairs))
    votes = with_texts(judge, pairs) if pairs is not None else read_votes(judge)
    humans = read_votes(human) if human is not None else None
    return of_votes(
        votes, humans, by, rounds, seed, confidence, annotator=annotator, pool=pool, export=export, origin=str(judge)
    )


def of_votes(
    votes: pd.DataFrame,
    humans: pd.DataFrame | None,
    by: str | None,
    rounds: int,
    seed: int,
    confidence: float,
    *,
    annotator: str | None = None,
    pool: bool = False,
    export: Path | None = None,
    origin: str,
) -> Result:
    """The validation; the judge alone without humans; the table of runs when the judge's votes carry the labels."""
    names = [str(n) for n in votes["annotator"].unique()]
    if pool:
        if annotator is not None:
            raise UserError("--pool takes all annotators for one and --annotator picks one; give one of them")
        votes, names = votes.assign(annotator=Path(origin).name.split(".")[0]), [Path(origin).name.split(".")[0]]
    if annotator is not None:
        if annotator not in names:
            raise UserError(f"{origin}: no verdict of `{annotator}`; {nearest(annotator, names)}")
        votes, names = votes[votes["annotator"] == annotator].reset_index(drop=True), [annotator]
    if humans is None and "human_label" in votes:
        known = ("subset", "judge", "strategy", "annotator")
        columns = [c.strip() for c in by.split(",")] if by else [c for c in known if c in votes][:3]
        runs = audit_runs(votes, columns, confidence=confidence)
        return JudgeRuns(runs, tuple(columns), origin, confidence)
    if by is not None:
        raise UserError(f"--by is for judge runs that carry their labels; {origin} has no `human_label`")
    if len(names) > 1:
        raise UserError(
            f"{origin}: {len(names)} annotators ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''}); "
            "choose one with --annotator, or take all for one judge with --pool"
        )
    found: Result
    if humans is None:
        found = judge_alone(votes, confidence=confidence)
    else:
        found = validate(votes, humans, rounds=rounds, seed=seed, confidence=confidence)
    if export is not None:
        write_annotated_pairs([votes] if humans is None else [votes, humans], export, origin)
    return found


def with_texts(path: Path, pairs: Path) -> pd.DataFrame:
    """Votes that name their pairs by ``pair_id``, with the texts of a file of pairs: these are the key then.

    Raises:
        UserError: for a file without ``pair_id``, a repeated id, or one that has no texts.
    """
    rows, texts = read_table(path), merge_input(read_table(pairs))
    for table, origin in ((rows, path), (texts, pairs)):
        if "pair_id" not in table:
            raise UserError(f"{origin}: the column `pair_id` is missing; --pairs joins verdicts and texts by it")
    repeated = texts["pair_id"].duplicated().to_numpy()
    if repeated.any():
        at = int(repeated.argmax())
        raise UserError(f"{pairs}: row {at + 1}: `pair_id` {texts['pair_id'][at]} occurs twice")
    lacking = ~rows["pair_id"].isin(texts["pair_id"]).to_numpy()
    if lacking.any():
        at = int(lacking.argmax())
        raise UserError(f"{path}: row {at + 1}: `pair_id` {rows['pair_id'][at]} has no texts in {pairs}")
    own = [c for c in texts.columns if c == "pair_id" or c not in rows]
    merged = rows.merge(texts[own], on="pair_id", how="left", validate="many_to_one")
    return from_table(merged.drop(columns="pair_id"), str(path), annotator=path.name.split(".")[0])
