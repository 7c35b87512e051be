"""The one exception for a user's mistake: a sentence that names the file, key or row, and what to do."""

from __future__ import annotations

import warnings


class UserError(Exception):
    """A mistake the user can mend. The command line prints it as one sentence and exits with ``status``."""

    status = 2


class Interrupted(UserError):
    """Ctrl-C during work of which something is kept: the sentence says what, and how to go on."""

    status = 130


class Alarm(UserWarning):
    """Something that may spoil what is being made, as one sentence. The command line shows it as that."""


def show_alarms_plainly() -> None:
    """From now on an alarm is shown as its sentence, without the file and the line of code that gave it."""
    whole = warnings.formatwarning

    def formatted(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if issubclass(category, Alarm):
            return f"farm: warning: {message}\n"
        return whole(message, category, filename, lineno, line)

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


def nearest(word: str, known: object) -> str:
    """A clause naming the known word closest to a misspelt one, or the list of the known words.

    >>> nearest("bata", ["beta", "steps"])
    'did you mean `beta`?'
    """
    import difflib

    words = sorted(str(w) for w in known)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(word, words, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(words) if words else "nothing is known here"


def need(extra: str, package: str, purpose: str) -> UserError:
    """The error for an optional library that is not installed."""
    return UserError(
        f"{purpose} needs the package {package}, which is not installed: pip install 'feedback-farm[{extra}]'"
    )
