"""What ``farm validate`` does: one judge against humans or alone, or a table of judge runs that carry labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from eval.face.options import ValidateOptions
from eval.judges.judge_runs import JudgeRuns, audit_runs
from eval.judges.validate import validate
from eval.published.annotated_pairs import check_export, write_annotated_pairs
from eval.published.fetch import named_file
from eval.rates.habits import judge_alone
from farm.base.errors import OptionError, UserError, nearest
from farm.statistics.result import Result
from farm.tables.formats import rows as rows_of
from farm.votes.table import from_table, read_votes, with_texts


def validated(options: ValidateOptions) -> Result:
    """The validation; the judge alone without humans; the table of runs when the judge's votes carry the labels.

    The export has the votes of each annotator, of a pool, too.
    """
    options = replace(options, judge=named_file(options.judge), human=named_file(options.human))
    origin = str(options.judge) if isinstance(options.judge, (str, Path)) else "the judge"
    if options.export is not None:
        given = (options.judge, options.human, options.pairs)
        check_export(options.export, tuple(Path(rows) for rows in given if isinstance(rows, (str, Path))))
    if _same(options.judge, options.human):
        raise OptionError(f"`human` is {origin} itself: give people's votes on the same pairs")
    item = options.item
    if options.pairs:
        votes = with_texts(options.judge, options.pairs, item=item)
    else:
        votes = _votes(options.judge, "the judge", "judge", item)
    humans = None if options.human is None else _votes(options.human, "the humans", "human", item)
    if options.pairs and humans is not None and "output_1" not in humans:
        humans = with_texts(options.human, options.pairs, item=item)
    each = votes
    names = [str(n) for n in votes["annotator"].unique()]
    if options.pool:
        if options.annotator is not None:
            raise OptionError("`pool` takes all annotators for one and `annotator` picks one; give one of them")
        names = [Path(origin).name.split(".")[0]]
        votes = votes.assign(annotator=names[0])
    if options.annotator is not None:
        if options.annotator not in names:
            raise UserError(f"{origin}: no verdict of `{options.annotator}`; {nearest(options.annotator, names)}")
        names = [options.annotator]
        votes = each = votes[votes["annotator"] == options.annotator].reset_index(drop=True)
    if humans is None and "human_label" in votes:
        known = ("subset", "judge", "strategy", "annotator")
        columns = list(options.by) or [c for c in known if c in votes][:3]
        runs = audit_runs(votes, columns, confidence=options.confidence)
        return JudgeRuns(runs, tuple(columns), origin, options.confidence)
    if options.by:
        raise OptionError(f"`by` is for judge runs that carry their labels; {origin} has no `human_label`")
    if len(names) > 1:
        raise OptionError(
            f"{origin}: {len(names)} annotators ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''}); "
            "choose one with `annotator`, or take all for one judge with `pool`"
        )
    found: Result
    if humans is None:
        found = judge_alone(votes, confidence=options.confidence)
    else:
        found = validate(votes, humans, rounds=options.rounds, seed=options.seed, confidence=options.confidence)
    if options.export is not None:
        write_annotated_pairs([each] if humans is None else [each, humans], options.export, origin)
    return found


def _same(judge: Any, human: Any) -> bool:
    """Whether the two are one file, or one table."""
    if isinstance(judge, (str, Path)) and isinstance(human, (str, Path)):
        return Path(judge).resolve() == Path(human).resolve()
    return human is judge and human is not None


def _votes(rows: Any, origin: str, annotator: str, item: Sequence[str]) -> pd.DataFrame:
    """Votes of a file in any known layout, or of a table or rows."""
    if isinstance(rows, (str, Path)):
        return read_votes(rows, item=item)
    return from_table(rows_of(rows, origin), origin, annotator=annotator, item=item)
