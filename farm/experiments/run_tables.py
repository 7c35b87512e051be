"""The files of a run folder as they are read: looked at once, so that what follows can rely on them.

A run folder may come from anyone, and may have been edited. A column of a known name holds what that name says:
texts are texts, numbers are finite numbers; values may be missing except in the columns that tell the rows apart.
Columns of other names (what is swept, a method's metrics) are passed on as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farm.base.errors import UserError
from farm.roles import named_configs
from farm.tables import formats
from farm.tables.table_files import holds_half

_TEXTS = set(
    "method instruction output output_1 output_2 generator generator_1 generator_2 annotator status baseline first "
    "second variant stage reason trace headline missing_why finish_reason dataset split purpose feedback".split()
)
_NUMBERS = set(
    "rank win_rate discrete_win_rate standard_error difference low high degrees p p_holm p_fdr p_max_t p_first gold "
    "gold_1 gold_2 proxy kl avg_length preference price seconds tokens sample samples instructions seed seeds missing "
    "replicate input_tokens output_tokens shown_first spearman pearson kendall r_squared step exploitability labels "
    "price_of_people ratio agreement_1 agreement_2 episode turn reward success distinct".split()
)
_NUMBER_PARTS = ("n_", "win_rate_"), ("_low", "_high", "_sd")
_NEEDED = {
    "outputs": ("method", "instruction", "output"),
    "preferences": ("instruction", "preference"),
    "dialogues": ("method", "instruction", "output", "episode", "turn", "reward"),
    "judge": ("instruction", "preference"),
    "leaderboard": ("method",),
    "results": ("variant", "method"),
    "pairwise": ("first", "second", "difference"),
    "agreement": ("first", "second"),
    "rankings": ("first", "second"),
    "variants": ("variant", "seed"),
    "failures": ("method", "reason"),
    "headlines": ("headline",),
}
_ALWAYS = {"method", "instruction", "output", "variant", "first", "second", "headline", "generator_2"}
"""columns in which no value may be missing"""
_MAY_DIVERGE = {"kl", "proxy"}
_LARGEST = 1e15
"""no number of a run is larger, and sums and squares of these are finite"""


def read(path: Path) -> pd.DataFrame:
    """A table of a run folder.

    Raises:
        UserError: for a file that cannot be read, a missing column, or a value that is not of its column's kind.
    """
    table = formats.read_table(path)
    if len(set(map(str, table.columns))) < len(table.columns):
        raise UserError(f"{path}: a column stands there twice")
    if not len(table) and not len(table.columns):
        return table
    for column in _NEEDED.get(path.stem.partition("_")[0] if path.stem.startswith("judge_") else path.stem, ()):
        if column not in table.columns:
            raise UserError(f"{path}: the column `{column}` is missing")
    checked = {str(column): _checked(table[column], str(column), f"{path}: row") for column in table.columns}
    if "preference" in checked:
        checked["preference"] = formats.preferences(pd.Series(checked["preference"]), path)
    return table.assign(**checked)


def can_hold(column: str, values: pd.Series) -> bool:
    """Whether a table of a run may have these values in a column of this name."""
    try:
        _checked(values, column, "row")
    except UserError:
        return False
    return True


def can_hold_of_outputs(column: str, values: pd.Series) -> bool:
    """Whether it may also have them once a side, and as a list, where outputs are put together."""
    listed = pd.Series([[value] for value in values], index=values.index, dtype=object)
    return can_hold(column, values) and can_hold(f"{column}_1", values) and can_hold(f"{column}s", listed)


def _checked(values: pd.Series, column: str, origin: str) -> Any:
    if column in _TEXTS:
        return _texts(values, origin, column)
    if column in _NUMBERS or column.startswith(_NUMBER_PARTS[0]) or column.endswith(_NUMBER_PARTS[1]):
        return _numbers(values, origin, column)
    return values


def _texts(values: pd.Series, origin: str, column: str) -> Any:
    missing = np.flatnonzero(values.isna().to_numpy())
    if missing.size and column in _ALWAYS:
        raise UserError(f"{origin} {int(missing[0]) + 1}: `{column}` is missing")
    if isinstance(values.dtype, pd.StringDtype):
        return values
    out, absent = [], set(missing.tolist())
    for row, value in enumerate(values.tolist(), start=1):
        if row - 1 in absent:
            value = None
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and column != "instruction":
            value = f"{value:g}" if isinstance(value, float) else str(value)  # a name like 7, from a CSV file
        elif not isinstance(value, str):
            raise UserError(f"{origin} {row}: `{column}` is not a text but {_shown(value)}")
        out.append(value)
    return np.array(out, dtype=object)


def _numbers(values: pd.Series, origin: str, column: str) -> Any:
    numbers = values.to_numpy() if values.dtype.kind in "iuf" else _converted(values, origin, column)
    wrong = np.flatnonzero(np.abs(np.nan_to_num(numbers.astype(np.float64), nan=0.0, posinf=np.inf)) > _LARGEST)
    if wrong.size and column not in _MAY_DIVERGE:
        at = int(wrong[0])
        raise UserError(f"{origin} {at + 1}: `{column}` = {numbers[at]:g} is too large for a number of a run")
    return numbers


def _converted(values: pd.Series, origin: str, column: str) -> NDArray[np.float64]:
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values.tolist()):
        if value is None or value is pd.NA:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{origin} {row + 1}: `{column}` is not a number but {_shown(value)}")
        out[row] = value
    return out


def _shown(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}".replace("\n", " ")


def settings(run: Path) -> tuple[str, dict[str, Any]]:
    """The resolved configuration of a run, as text and as data. Raises UserError where there is none."""
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(f"{run}: not a run folder (it has no config.yaml); give a folder that `farm run` wrote")
    data = named_configs.load_mapping(path)
    seed = data.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63):
        raise UserError(f"{path}: `seed` must be a whole number from 0 on, not {_shown(seed)}")
    return path.read_text(encoding="utf-8"), data


class _Stage(BaseModel):
    model_config = ConfigDict(extra="allow")
    stage: str
    seconds: float | None = Field(default=None, ge=0, le=_LARGEST)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: str
    annotations: int = Field(ge=0, le=10**15)
    statuses: dict[str, int] = {}
    price: float = Field(ge=0, le=_LARGEST)
    input_tokens: int = Field(default=0, ge=0, le=10**15)
    output_tokens: int = Field(default=0, ge=0, le=10**15)
    price_of_people: float = Field(default=0, ge=0, le=_LARGEST)


_Form = TypeVar("_Form", bound=BaseModel)


class _Costs(BaseModel):
    model_config = ConfigDict(extra="allow")
    stages: list[_Stage] = []
    annotations: list[_Asked] = []
    peak_memory_gib: float | None = Field(default=None, ge=0, le=_LARGEST)


def costs(path: Path) -> dict[str, Any]:
    """What stands in ``costs.json``; empty where there is none."""
    return conforming(_Costs, mapping(path), path).model_dump()


def conforming(form: type[_Form], found: dict[str, Any], path: Path, strict: bool = False) -> _Form:
    """What was found in a file in its form. Raises UserError naming the first value that does not fit."""
    try:
        return form.model_validate(found, strict=strict)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: `{place}`: {first['msg'][0].lower()}{first['msg'][1:]}") from error


def mapping(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: not JSON ({error.msg.lower()})") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object, found {type(found).__name__}")
    if holds_half(found):
        raise UserError(f"{path}: a text holds half of a surrogate pair, which is no text")
    return found
