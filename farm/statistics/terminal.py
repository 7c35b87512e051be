"""Tables as text that fits a terminal: a number and its interval in one cell, what finds no room named below.

Columns ``x``, ``x_low`` and ``x_high`` (and ``low``, ``high`` behind the number they bound) become ``x [low, high]``.
Long headings and texts are broken; then columns are left out from the right.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from farm.statistics.folding import folded, width

LEAST_TEXT = 20
"""columns of the terminal that a broken text keeps"""
GAP = 2
UNNAMED = "(unnamed)"
"""in the place of a name that is empty, as of the methods in pairs that name none"""


def merged(table: pd.DataFrame, few: str = "") -> pd.DataFrame:
    """The table as texts, each number with its interval.

    Args:
        few: what stands in the place of an interval, or of a number with one, that is missing.
    """
    names = [str(c) for c in table.columns]
    cells = {name: [number(v) for v in table[column]] for name, column in zip(names, table.columns, strict=True)}
    bounds = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= {*names}}
    # `corrected_low` bounds `corrected_win_rate`, and `lc_low` the rate that stands before it.
    for low in [n for n in names if n == "low" or n.endswith("_low")]:
        high = f"{low[:-3]}high"
        if high in names and not any(low in pair for pair in bounds.values()):
            before = [n for n in names[: names.index(low)] if not n.endswith(("standard_error", "_low", "_high"))]
            if before and before[-1] not in bounds and pd.api.types.is_numeric_dtype(table[before[-1]]):
                bounds[before[-1]] = (low, high)
    for name, (low, high) in bounds.items():
        ends = list(zip(cells.pop(low), cells.pop(high), strict=True))
        between = [
            f"[{a}, {b}]" if a and b else f"[{few}]" if few and value else few
            for value, (a, b) in zip(cells[name], ends, strict=True)
        ]
        first, last = (max(map(len, part), default=0) for part in (cells[name], between))
        cells[name] = [
            f"{v.rjust(first)} {text.ljust(last)}" if v else text.rjust(first + 1 + last)
            for v, text in zip(cells[name], between, strict=True)
        ]
    return pd.DataFrame(cells, index=table.index)


def number(value: Any) -> str:
    """A cell: four digits of a fraction, nothing where it is missing."""
    if isinstance(value, (list, tuple, dict)):
        return str(value)
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(table: pd.DataFrame, few: str = "") -> str:
    """The table as lines no longer than the terminal is wide; a single row that is longer as a line a column."""
    texts = merged(table, few)
    left = [c for c in texts if not pd.api.types.is_numeric_dtype(table[c])]
    widths = {c: max([len(v) for v in texts[c]] + [len(part) for part in _parts(c)], default=0) for c in texts}
    if len(table) == 1 and _total(widths) > width():
        return turned(table.assign(**{"": "value"}), "", few)
    while _total(widths) > width():
        room = [c for c in left if c in widths and widths[c] > LEAST_TEXT]
        if room:
            widest = max(room, key=lambda c: widths[c])
            widths[widest] = max(LEAST_TEXT, widths[widest] - (_total(widths) - width()))
        elif len(widths) > 1:
            widths.popitem()
        else:
            break
    lines = _lines(texts[[*widths]], widths, left)
    gone = [c for c in texts if c not in widths]
    if gone:
        lines.append(folded(f"not shown here: {', '.join(gone)} (--json and --out have all)", break_words=True))
    return "\n".join(lines)


def turned(table: pd.DataFrame, label: str, few: str = "") -> str:
    """Columns as lines, and the rows beside each other, as many as fit; ``label`` is the column that names them."""
    texts = merged(table, few).set_index(label).T
    names = max((len(str(n)) for n in texts.index), default=0)
    blocks: list[list[int]] = [[]]
    sizes = [
        max(len(str(texts.columns[k]) or UNNAMED), *(len(v) for v in texts.iloc[:, k])) for k in range(texts.shape[1])
    ]
    sizes = [min(size, width() - names - GAP) for size in sizes]
    for k, size in enumerate(sizes):
        if blocks[-1] and names + sum(sizes[j] + GAP for j in blocks[-1]) + size + GAP > width():
            blocks.append([])
        blocks[-1].append(k)
    parts = []
    for block in blocks:
        heads = ["", *(str(texts.columns[k]) or UNNAMED for k in block)]
        keyed = texts.iloc[:, block].set_axis(range(1, len(heads)), axis=1).reset_index(names=0)
        widths = {0: names} | {place + 1: sizes[k] for place, k in enumerate(block)}
        parts.append("\n".join(_lines(keyed, widths, [0], heads=heads)))
    return "\n\n".join(parts)


def _parts(name: str, size: int = 10) -> list[str]:
    """A heading, or a name in a cell, that may be broken behind its underscores."""
    pieces = name.replace("_", "_ ").split(" ")
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1] + piece) > size:
            lines.append("")
        lines[-1] += piece
    return lines


def _total(widths: dict[Any, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _lines(
    texts: pd.DataFrame, widths: dict[Any, int], left: Sequence[Any], heads: Sequence[str] | None = None
) -> list[str]:
    columns = [*widths]
    names = [str(c) for c in columns] if heads is None else list(heads)
    place: dict[Any, Callable[[str, int], str]] = {c: str.ljust if c in left else str.rjust for c in columns}
    rows = [[_parts(n) if heads is None else _broken(n, widths[c]) for n, c in zip(names, columns, strict=True)]]
    table = texts.itertuples(index=False)
    rows += [[_broken(v, widths[c]) for v, c in zip(values, columns, strict=True)] for values in table]
    out = []
    for k, row in enumerate(rows):
        high = max(map(len, row))
        for line in range(high):
            cells = []
            for c, parts in zip(columns, row, strict=True):
                at = line - (high - len(parts)) if not k else line  # headings end on one line
                cells.append(place[c](parts[at] if 0 <= at < len(parts) else "", widths[c]))
            out.append((" " * GAP).join(cells).rstrip())
    return out


def _broken(text: str, size: int) -> list[str]:
    if len(text) <= size:
        return [text]
    words = textwrap.wrap(text, max(size, 1), break_long_words=False)
    parts = [part for word in words for part in (_parts(word, size) if len(word) > size else [word])]
    return [line for part in parts for line in textwrap.wrap(part, max(size, 1))] or [""]
