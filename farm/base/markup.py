"""Elements of pages and drawings, in which every text is data.

Texts that models or users wrote pass through :func:`visible` before they are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from markupsafe import Markup

NOTHING = Markup()

# Characters that reorder or hide the text around them: C0 and C1 controls, directional embeddings, overrides and
# isolates, and halves of surrogate pairs (which no file can hold).
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: object) -> str:
    """The text with invisible control characters spelt out, so that they cannot rearrange the page."""
    return _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", str(text).replace("\r\n", "\n"))


def element(tag: str, content: str = NOTHING, **attributes: object) -> Markup:
    """One element of HTML or SVG; content that is not markup is escaped, and so are the values of attributes.

    ``class_`` is ``class`` and ``text_anchor`` is ``text-anchor``; an attribute that is None is left out, and a float
    is written with two decimals at most.
    """
    written = NOTHING.join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _value(value))
        for name, value in attributes.items()
        if value is not None
    )
    return (Markup("<{0}{1}>{2}</{0}>") if content else Markup("<{}{}/>")).format(tag, written, content)


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else visible(value)


def join(parts: Iterable[str], between: Markup = NOTHING) -> Markup:
    """Markup side by side; a part that is not markup is escaped."""
    return between.join(parts)
