"""The one exception for a user's mistake: a sentence that names the file, key or row, and what to do."""


class UserError(Exception):
    """A mistake the user can mend. The command line prints it as one sentence and exits with status 2."""


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
