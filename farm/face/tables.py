"""A table on the terminal."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from farm.base.progress import printable

if TYPE_CHECKING:
    import pandas as pd


def print_table(table: pd.DataFrame, title: str = "") -> None:
    """A table on the terminal: numbers whole and right-aligned, names folded where all would not fit into its width."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    cells = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    names = [str(column).replace("_", " ") for column in table.columns]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    label = [not any(re.match(r"[-+]?(\d|nan|$)", row[i]) for row in cells) for i in range(len(names))]
    # Where there is no terminal a line is as long as that of a narrow one, and longer only to keep numbers whole.
    console = Console(width=None if sys.stdout.isatty() else 80)
    least = sum(min(w, _FOLDED) if name else w for w, name in zip(widths, label, strict=True)) + 2 * len(names) - 2
    shown = Table(
        title=printable(title) or None, title_justify="left", header_style="bold",
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for name, folded in zip(names, label, strict=True):
        if folded:
            shown.add_column(escape(name), overflow="fold")
        else:
            shown.add_column(escape(name), justify="right", no_wrap=True)
    for row in cells:
        shown.add_row(*map(escape, row))
    console.width = max(console.width, least)
    console.print(shown)


_FOLDED = 10
"""columns that a name keeps"""


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value)).replace("\n", " ")
