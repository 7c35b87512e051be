"""Text in lines that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap


def width() -> int:
    """Columns of the terminal, or 80 where there is none."""
    return max(shutil.get_terminal_size().columns if sys.stdout.isatty() else 80, 40)


def folded(text: str, behind: str = "", break_words: bool = False) -> str:
    """Lines no longer than the terminal is wide, but for words that alone are longer unless they may be broken.

    Args:
        behind: what the lines begin with that follow the first of a broken one.
    """
    columns = width()
    lines = (
        textwrap.wrap(line, columns, subsequent_indent=behind, break_long_words=break_words, break_on_hyphens=False)
        for line in text.split("\n")
    )
    return "\n".join("\n".join(line) for line in lines)
