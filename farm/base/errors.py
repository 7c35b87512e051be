"""The one exception for a user's mistake: a sentence that names the file, key or row, and what to do."""

from __future__ import annotations

import errno
import reprlib
import warnings

LONGEST = 293
"""characters of a sentence, which `farm: ` comes before"""
REFUSED = frozenset(
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EROFS EACCES EPERM ENAMETOOLONG ELOOP ENOTDIR EISDIR EIO".split()
)
"""what the system refuses for reasons that are the user's to mend: a full disk, a folder that is read-only, ..."""


class UserError(Exception):
    """A mistake the user can mend. The command line prints it as one sentence and exits with ``status``.

    The sentence is one line of at most :data:`LONGEST` characters: a longer one (of a long path) is cut in the middle.
    """

    status = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(brief(" ".join(sentence.split("\n")), LONGEST))


class OptionError(UserError):
    """A mistake in the options of a command, with their names in Python in backticks: the command line says its flags
    in their place."""


class Fruitless(UserError):
    """Work that was done and came to nothing; what it left is kept."""

    status = 1


class Interrupted(UserError):
    """Ctrl-C during work of which something is kept: the sentence says what, and how to go on."""

    status = 130


class Alarm(UserWarning):
    """Something that may make a result wrong, as one sentence. The command line shows it as that."""


def show_alarms_plainly() -> None:
    """From now on an alarm is shown as its sentence, without the file and the line of code that gave it."""
    whole = warnings.formatwarning
    if getattr(whole, "shows_alarms", False):  # a program that runs many commands must not wrap it again for each
        return

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, Alarm):
            return f"farm: warning: {message}\n"
        return whole(message, category, filename, lineno, line)

    formatted.shows_alarms = True  # type: ignore[attr-defined]
    warnings.formatwarning = formatted


def cause(error: BaseException) -> BaseException:
    """What went wrong inside a group of exceptions: the first mistake of the user's, else the first of all.

    >>> cause(ExceptionGroup("two tasks", [ValueError("b"), ExceptionGroup("more", [UserError("a")])]))
    UserError('a')
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [cause(inner) for inner in error.exceptions]
    return next((inner for inner in found if isinstance(inner, UserError)), found[0])


def brief(text: str, most: int) -> str:
    """A text of at most so many characters, cut in the middle where it is longer.

    >>> brief("abcdefghijklmnopqrstuvwxyz", 15)
    'abcdefg ... xyz'
    """
    if len(text) <= most:
        return text
    tail = (most - 5) // 3
    return f"{text[: most - 5 - tail]} ... {text[len(text) - tail :]}"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def shown(value: object) -> str:
    """A value as it can stand in a sentence: how Python writes it, cut where that is long.

    >>> shown([1, 10**5000])
    'a list'
    >>> shown(10**400)
    'a whole number of 401 digits'
    """
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"a whole number of {int(value.bit_length() * 0.30103) + 1:,} digits"
    try:
        return brief(_repr.repr(value), 80)
    except ValueError:  # Python writes no number of thousands of digits
        return f"a {type(value).__name__}"


def nearest(word: str, known: object) -> str:
    """A clause naming the known word closest to a misspelt one, or the list of the known words.

    >>> nearest("bata", ["beta", "steps"])
    'did you mean `beta`?'
    """
    import difflib

    words = sorted(brief(str(w), 40) for w in known)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(brief(word, 40), words[:_COMPARED], n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    if not words:
        return "there are none"
    return f"known: {', '.join(words[:_LISTED])}" + (
        f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    )


_COMPARED, _LISTED = 2_000, 10
"""known words that a misspelt one is compared with, and that are listed where none is near"""


def shadowed(module: str) -> UserError | None:
    """The error where a module of ours is not found because another one of its name comes first; else None."""
    import importlib.util
    from pathlib import Path

    name = module.partition(".")[0]
    ours = Path(__file__).resolve().parents[2] / name
    spec = importlib.util.find_spec(name)
    if spec is None or not (ours / "__init__.py").is_file():
        return None
    found = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), "")).resolve()
    if found.is_relative_to(ours):
        return None
    place = found.parent if found.name == "__init__.py" else found
    return UserError(f"{place}: hides the package `{name}` of feedback-farm; rename it, or start in another folder")


def need(extra: str, package: str, purpose: str) -> UserError:
    """The error for an optional library that is not installed."""
    return UserError(f"{purpose} needs the package {package}, which is not installed: {installing(extra)}")


def installing(extra: str) -> str:
    """How an extra is installed: from the project's folder, for it is in no registry of packages."""
    return f"in the folder of feedback-farm, pip install -e '.[{extra}]'"
