"""What ``farm evaluate`` does: judge outputs if that is what it is given, then evaluate the annotations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from eval.evaluators.evaluation import Evaluation, evaluate_table, together
from eval.face.options import EvaluateOptions
from eval.judges import judging
from eval.published import people
from farm.asking.limits import Limits
from farm.base.errors import OptionError
from farm.tables import formats, vote_layouts


def evaluated(options: EvaluateOptions, judged: Callable[[judging.Judged], None] | None = None) -> Evaluation:
    """The evaluation of annotations, or of outputs after a judge has compared them with the baseline.

    Args:
        judged: gets what the judge said, before it is evaluated.
    """
    given = files(options.rows)
    if options.annotations is not None:
        inputs = [rows for rows in (*(given or ()), options.baseline, options.human) if isinstance(rows, (str, Path))]
        formats.check_table(options.annotations, inputs=[Path(rows) for rows in inputs])
    human = None
    if options.human is not None:
        origin, _, table = named(options.human, "the human annotations", "")
        human = formats.as_annotations(table, origin)
    called = "the annotations" if options.judge is None else "the outputs"
    tables = [named(rows, called, "own") for rows in ([options.rows] if given is None else given)]
    verdicts = {"preference", "winner"}
    has_verdicts = all(verdicts & set(table.columns) for _, _, table in tables)
    asks = options.judge is not None or (options.baseline is not None and not has_verdicts)
    rows = _judged(options, tables, judged) if asks else _annotations(options, tables)
    return evaluate_table(
        rows,
        by=options.by,
        confidence=options.confidence,
        flip_rate=options.flip_rate,
        flip_rate_standard_error=options.flip_rate_standard_error,
        humans=human,
        seed=options.seed,
    )


def files(rows: Any) -> list[Path] | None:
    """The files that were named, or None where the rows themselves were given."""
    if isinstance(rows, (str, Path)):
        return [Path(rows)]
    several = isinstance(rows, (list, tuple)) and len(rows) > 0 and all(isinstance(name, (str, Path)) for name in rows)
    return [Path(name) for name in rows] if several else None


def named(rows: Any, origin: str, name: str) -> tuple[str, str, pd.DataFrame]:
    """Where a table is from, for errors; the name of what wrote it, where it does not say; and the table."""
    if isinstance(rows, (str, Path)):
        return str(rows), Path(rows).stem, vote_layouts.as_annotations(formats.read_table(Path(rows)), str(rows))
    return origin, name, formats.rows(rows, origin)


def _annotations(options: EvaluateOptions, tables: list[tuple[str, str, pd.DataFrame]]) -> pd.DataFrame:
    for origin, _, table in tables:
        if "preference" not in table.columns and "output" in table.columns:
            raise OptionError(f"{origin}: holds outputs, not annotations; give `judge` and `baseline`, too")
    for_judges = (options.annotations, options.store, options.fresh or None, options.judge_settings or None)
    if any(said is not None for said in for_judges) or options.limits != Limits():
        raise OptionError(
            "`annotations`, `store`, `fresh`, `judge_settings` and limits belong to a judge; annotations are taken as "
            "they are"
        )
    read = [(origin, name, people.as_annotations(table, origin, options.item)) for origin, name, table in tables]
    of_files = files(options.rows) is not None
    whole = [(o, t.assign(generator_2=name) if of_files and "generator_2" not in t else t) for o, name, t in read]
    if options.baseline is not None:
        if not isinstance(options.baseline, (str, Path)):
            raise OptionError("`baseline`: of annotations it is the name of a generator; outputs also need `judge`")
        whole = [(o, people.against(t, str(options.baseline), o)) for o, t in whole]
    rows = together(whole, pooled=options.pool)
    return rows.assign(annotator=people.POOLED) if options.pool else rows


def _judged(
    options: EvaluateOptions,
    tables: list[tuple[str, str, pd.DataFrame]],
    judged: Callable[[judging.Judged], None] | None,
) -> pd.DataFrame:
    if options.judge is None or options.baseline is None:
        raise OptionError("model outputs need both `judge` and `baseline`")
    if options.pool or options.item:
        raise OptionError("`pool` and `item` are for annotations that are there; a judge's rows say both")
    base = named(options.baseline, "the baseline's outputs", "base")
    pairs = judging.pairs([judging.outputs(*table) for table in tables], judging.outputs(*base))
    if not len(pairs):
        raise OptionError(f"{tables[0][0]}: is the baseline itself; there is nothing to compare")
    if options.store is not None and options.fresh:
        raise OptionError("`store` keeps verdicts and `fresh` keeps none; give one of them")
    found = judging.judge(
        pairs,
        options.judge,
        settings=options.judge_settings,
        seed=options.seed,
        store=options.store,
        fresh=options.fresh,
        limits=options.limits,
    )
    if judged is not None:
        judged(found)
    if options.annotations is not None:
        formats.write_annotations(found.rows, options.annotations)
    return found.rows
