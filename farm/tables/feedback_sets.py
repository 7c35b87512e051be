"""Sets of feedback in the formats that others use: recognised by their columns, read, written, turned into one another.

| format | kind | a row |
|---|---|---|
| outputs | outputs | instruction, output, generator (AlpacaEval's model outputs) |
| annotations | pairs | instruction, output_1, output_2, generator_1, generator_2, annotator, preference (AlpacaEval) |
| preferences | pairs | prompt, chosen, rejected (TRL, most of the hub) |
| hh | pairs | chosen, rejected as whole dialogues in texts (HH-RLHF, :mod:`farm.tables.dialogue_texts`) |
| conversational | pairs | the same as lists of role/content turns; without a prompt, both are whole conversations |
| battles | pairs | model_a, model_b, winner; prompt, response_a, response_b, judge (Arena) |
| sheets | pairs | model_a, model_b, preferred; prompt, completion_a, completion_b, evaluator (Tulu, MultiPref) |
| arena_hard | pairs | model, judge, games: two with a score (Arena-Hard's judgments; read alone) |
| annotated_pairs | pairs | one JSON of comparisons, version 2.0 (:mod:`farm.tables.annotated_pairs`) |
| labels | reactions | prompt, completion, label (TRL) |
| ultrafeedback | ratings | instruction, completions: model, response, overall_score, annotations of aspects |
| helpsteer | ratings | prompt, response, helpfulness, correctness, coherence, complexity, verbosity |
| ratings | ratings | instruction, output, score, and aspect_... |
| completions | outputs | prompt, completion (TRL) |
| messages | outputs | messages: a conversation whose last turn is the answer (TRL, most of the hub) |
| rankings, reactions, critiques, corrections, checks, triplets, sets | the same | :mod:`farm.tables.given_answers` |

A set is read as the table of its kind (farm/tables/records.py). Pairs say which reactions and outputs they hold,
ratings which pairs, by comparison; nothing else follows from anything. Further columns go with what follows: those of a
prompt, those of an output (``heat_1`` of a pair is ``heat`` of its first output), and those of the row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from farm.base import files
from farm.base.errors import OptionError, UserError, nearest
from farm.tables import annotated_pairs, dialogue_texts, formats, hub, sheets, turns, vote_layouts
from farm.tables.further import further, of_prompts, plain
from farm.tables.set_formats import ASPECT, FORMATS, NESTED, ONE_TURN, Format, from_winners
from farm.tables.table_files import READ, check_table, read_table, write_table

_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w./-]+)?")


@dataclass(frozen=True)
class FeedbackSet:
    """A table of feedback and how it was written."""

    format: str
    kind: str
    table: pd.DataFrame
    origin: str


Renamed = Mapping[str, str] | Sequence[str]
"""a field of the format -> the column that it is called here, or texts NEW=OLD"""


def read(source: str | Path, renamed: Renamed = (), kind: str | None = None) -> FeedbackSet:
    """A set from a file, or a data set of the hub (owner/name or owner/name:config).

    Args:
        kind: what is wanted of it, where its columns are those of several formats.

    Raises:
        UserError: naming the file, and the row and field, for what is of no format or not of the one it looks like.
    """
    path = Path(source)
    if not path.exists() and path.suffix not in (*READ, ".gz") and _HUB.fullmatch(str(source)):
        return of_table(hub.read_data_set(str(source)), str(source), renamed, kind)
    if annotated_pairs.looks_like(path):
        if renamed:
            raise UserError(f"{path}: annotated pairs name no columns of their own; leave out the map")
        return FeedbackSet("annotated_pairs", "pairs", from_winners(annotated_pairs.rows(path), str(path)), str(path))
    return of_table(read_table(path), str(path), renamed, kind)


def of_table(table: pd.DataFrame, origin: str, renamed: Renamed = (), kind: str | None = None) -> FeedbackSet:
    """The same of a table in memory."""
    for new, old in _names(renamed).items():
        if old not in table.columns:
            raise UserError(f"{origin}: there is no column `{old}` to take for `{new}`; {nearest(old, table.columns)}")
        if new != old:
            said = pd.to_numeric(table[old], errors="coerce").dropna().unique() if new == "preference" else ()
            if sorted(said) == [0, 1]:
                raise UserError(
                    f"{origin}: `{old}` is 0 or 1, and a `preference` of 1 prefers output_1: map it to `preferred` "
                    "where 1 prefers the second"
                )
            table = table.drop(columns=new, errors="ignore").rename(columns={old: new})
    table = sheets.of_two(table)
    table = vote_layouts.as_battles(vote_layouts.as_annotations(table, origin))
    found = _recognised(table, origin, kind)
    if not len(table):
        raise UserError(f"{origin}: holds no row")
    return FeedbackSet(found.name, found.kind, found.read(table.reset_index(drop=True), origin), origin)


def _names(renamed: Renamed) -> Mapping[str, str]:
    if isinstance(renamed, Mapping):
        return renamed
    names = {}
    for said in renamed:
        new, equals, old = said.partition("=")
        if not (new and equals and old):
            raise OptionError(f"`renamed` {said}: say NEW=OLD, a field of the format and the column that it is")
        names[new] = old
    return names


def as_kind(found: FeedbackSet, kind: str) -> pd.DataFrame:
    """The set as a table of another kind that follows from it.

    Raises:
        UserError: it does not follow, or no row does.
    """
    if kind == found.kind:
        return found.table
    turn = _FOLLOWS.get((found.kind, kind))
    if turn is None:
        known = [found.kind, *(to for of, to in _FOLLOWS if of == found.kind)]
        raise UserError(f"{found.origin}: holds {found.kind}, from which no {kind} follow, but {', '.join(known)}")
    if found.kind == "pairs":
        _require_texts(found.table, found.origin, kind)
    table = turn(found.table)
    if table.empty:
        raise UserError(f"{found.origin}: no row of its {found.kind} says anything of {kind}")
    return table


def convert(source: str | Path, out: Path, to: str | None = None, renamed: Renamed = ()) -> str:
    """Write a set in another format, or the same one in another file; says what was written and left out.

    Args:
        to: a format; that of the source where None.

    Raises:
        UserError: the source cannot be read, the format cannot hold it, or the file cannot be written.
    """
    found = read(source, renamed, FORMATS[to].kind if to in FORMATS else None)
    name, in_csv = to or found.format, out.name.removesuffix(".gz").endswith(".csv")
    if name == "annotated_pairs":
        if out.suffix != ".json":
            raise UserError(f"{out}: annotated pairs are a .json file")
        files.check_out(out, (Path(source),))
    else:
        if name in NESTED and in_csv:
            raise UserError(f"{out}: the format {name} has lists in its cells, which CSV cannot hold; write .jsonl")
        check_table(out, found.table.filter(["turns"]), inputs=[Path(source)])
    made, note = converted(found, name)
    if isinstance(made, pd.DataFrame):
        if in_csv and any(isinstance(prompt, list) for prompt in made.get("prompt", ())):
            raise UserError(f"{out}: there are system turns, which {name} in CSV cannot hold; write .json or .jsonl")
        write_table(made, out)
    else:
        files.write_text(out, json.dumps(made, indent=1, ensure_ascii=False))
    return note


def converted(found: FeedbackSet, name: str) -> tuple[pd.DataFrame | dict[str, Any], str]:
    """The rows of a format, or the document that annotated pairs are; and a note of what it holds and lacks."""
    if name not in FORMATS:
        raise UserError(f"there is no format `{name}`; {nearest(name, FORMATS)}")
    write = FORMATS[name].write
    if write is None:
        raise UserError(f"{found.origin}: {name} is read and not written; say another format by `--to`")
    table = as_kind(found, FORMATS[name].kind)
    if name in ONE_TURN and "turns" in table.columns:
        raise UserError(f"{found.origin}: has prompts of several turns, which {name} cannot hold; write conversational")
    if name in ("preferences", "conversational", "hh", "annotated_pairs"):
        _require_texts(table, found.origin, name)
    if name == "hh":
        dialogue_texts.check(table, found.origin)
    made: pd.DataFrame | dict[str, Any]
    if name == "annotated_pairs":
        compared = table["instruction"] + "\0" + table["output_1"] + "\0" + table["output_2"]
        first = 2 - table["preference"].astype(float)
        made, written = annotated_pairs.document(table.assign(comparison=compared, first=first)), len(table)
    else:
        made = write(table)
        written = len(made)
    lost = _lost(found.table if name == "labels" else table, name)
    return made, f"{found.format} of {len(found.table):,} rows to {name} of {written:,}{lost}"


_DECIDED = ("preferences", "conversational", "hh", "labels")
"""formats that say which of two is preferred, and have no place for a tie"""


def _lost(table: pd.DataFrame, name: str) -> str:
    """What a format cannot hold, as the end of a sentence."""
    if name not in (*_DECIDED, "battles", "sheets", "annotated_pairs") or "preference" not in table.columns:
        return ""
    values = table["preference"].to_numpy(dtype=np.float64)
    soft = int((~np.isnan(values) & ~np.isin(values, (1.0, 1.5, 2.0))).sum())
    out = f"; {soft:,} soft preferences became verdicts" if soft else ""
    if name in _DECIDED:
        gone = int((np.isnan(values) | (values == 1.5)).sum())
        out += f"; {gone:,} ties and missing verdicts were left out" if gone else ""
    return out


def _recognised(table: pd.DataFrame, origin: str, kind: str | None) -> Format:
    """The first format that a table has the columns of; before others one from which what is wanted follows."""
    there = set(table.columns)
    known = [f for f in FORMATS.values() if f.columns and set(f.columns) <= there and f.fits(table)]
    if known:
        return min(known, key=lambda f: 0 if f.kind == kind else 1 if (f.kind, kind) in _FOLLOWS else 2)
    near = max((f for f in FORMATS.values() if f.columns), key=lambda f: len(there & set(f.columns)) / len(f.columns))
    lacking = next(column for column in near.columns if column not in there)
    hint = nearest(lacking, table.columns)
    raise UserError(
        f"{origin}: of no known format; for {near.name} the field `{lacking}` is missing: say which column it is by a "
        f"map; {hint}"
    )


def _require_texts(table: pd.DataFrame, origin: str, name: str) -> None:
    for column in ("instruction", "output_1", "output_2"):
        if column not in table.columns:
            raise UserError(f"{origin}: {name} carry the texts, and the field `{column}` is missing")
        formats.require(table, [column], origin)


# --- what follows from what -------------------------------------------------------------------------------------------


def _asked(table: pd.DataFrame) -> list[str]:
    """The columns of a prompt and its system turn."""
    return [*turns.kept(table), *table.columns.intersection([turns.SYSTEM])]


def _beside(table: pd.DataFrame) -> list[str]:
    """Further columns that any table can hold; aspects are what a rating says."""
    found = plain(table[further(table)])
    return [c for c in found if c != turns.SYSTEM and not c.startswith(ASPECT)]


def _compared(ratings: pd.DataFrame) -> pd.DataFrame:
    """Every two outputs that one annotator rated for one prompt: the higher score is preferred, equal ones tie.

    Two ratings of the same text are no pair.
    """
    known = ratings[ratings["score"].notna()].reset_index(drop=True)
    who = pd.factorize(known["annotator"])[0]  # whose name is missing are one
    groups = known.groupby([turns.row_ids(known), who], sort=False).indices.values()
    places = [np.asarray(rows)[np.stack(np.triu_indices(len(rows), 1))] for rows in groups]
    first, second = np.concatenate([np.zeros((2, 0), np.int64), *places], axis=1).astype(np.int64)
    texts = known["output"].to_numpy(dtype=object)
    differ = texts[first] != texts[second]
    first, second = first[differ], second[differ]
    one, two = known.iloc[first].reset_index(drop=True), known.iloc[second].reset_index(drop=True)
    shared = of_prompts(known[[*turns.kept(known), *_beside(known)]])
    table = one[[*_asked(one), "annotator", *shared]].copy()
    for number, side in (("1", one), ("2", two)):
        for column in ("output", "generator", *(c for c in _beside(known) if c not in shared)):
            table[f"{column}_{number}"] = side[column]
    table["preference"] = 1.5 + 0.5 * np.sign(two["score"].to_numpy() - one["score"].to_numpy())
    return table.assign(status="ok")


def _sides(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first outputs and the second ones, each with its own columns and those of the pair."""
    beside, sides = _beside(pairs), []
    own = {c: re.sub(r"_1(?=_|$)", "", c) for c in beside if re.sub(r"_1(?=_|$)", "_2", c) in set(beside) - {c}}
    second = {re.sub(r"_1(?=_|$)", "_2", c): name for c, name in own.items()}
    shared = [c for c in beside if c not in own and c not in second]
    for number, names in (("1", own), ("2", second)):
        side = pairs[[*names]].rename(columns=names)
        side = side.drop(columns=[c for c in side if c in shared or c not in further(side)])
        texts = {name: pairs[f"{name}_{number}"] for name in ("output", "generator")}
        sides.append(pairs[[*_asked(pairs), "annotator", *shared]].assign(**texts, **side))
    return sides[0], sides[1]


def _as_reactions(pairs: pd.DataFrame) -> pd.DataFrame:
    """Both outputs of each decided pair: the preferred one liked, the other not."""
    decided = pairs[pairs["preference"].notna() & (pairs["preference"] != 1.5)]
    first = (decided["preference"] < 1.5).to_numpy()
    sides = [side.assign(liked=liked) for side, liked in zip(_sides(decided), (first, ~first), strict=True)]
    return pd.concat(sides).sort_index(kind="stable").reset_index(drop=True).assign(observed=True, status="ok")


def _outputs(table: pd.DataFrame) -> pd.DataFrame:
    """Each output once, with the further columns that say the same wherever it stands."""
    both = pd.concat(_sides(table)).sort_index(kind="stable") if "output_1" in table.columns else table
    both = both.reset_index(drop=True)
    ids = both[["output", "generator"]].assign(prompt=turns.row_ids(both))
    once = both.groupby([ids[c] for c in ids], dropna=False)
    beside = [c for c in _beside(both) if (once[c].nunique(dropna=False) <= 1).all()]
    return both.loc[~ids.duplicated(), [*_asked(both), "output", "generator", *beside]].reset_index(drop=True)


_FOLLOWS: dict[tuple[str, str], Callable[[pd.DataFrame], pd.DataFrame]] = {
    ("ratings", "pairs"): _compared,
    ("pairs", "reactions"): _as_reactions,
    ("pairs", "outputs"): _outputs,
    ("ratings", "outputs"): _outputs,
    ("reactions", "outputs"): _outputs,
}
"""(kind, kind that follows from it) -> how"""
