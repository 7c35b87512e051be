"""The vocabulary of the pocket world and its tokenizer: one token a word or fixed expression.

Inside, every piece of text begins with its space (" the soil") except punctuation and line breaks, so that a text is
the concatenation of its tokens. The tokenizer is an ordinary ``PreTrainedTokenizerFast`` that can be saved beside a
checkpoint; ``decode(encode(text)) == text`` for every text of the world.

Verdict tokens (``<topic:good>``) describe a finished text. The base model learns to predict them at the end of a text,
so that a reward model trained on it knows what there is to be valued; a policy may never write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from farm.worlds.pocket.words import CONSTRAINTS, FORMS, STYLES, TOPICS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BEGIN, ANSWER, END, UNKNOWN = "<pad>", "<bos>", "<answer>", "<eos>", "<unk>"
SPECIALS = (PAD, BEGIN, ANSWER, END, UNKNOWN)
BREAK, BULLET = "\n", "\n -"

ASPECTS: dict[str, tuple[str, ...]] = {
    "topic": ("good", "fair", "bad"),
    "strays": ("none", "some", "many"),
    "mention": ("right", "stray", "none"),
    "opening": ("right", "wrong", "none"),
    "form": ("kept", "broken"),
    "closing": ("right", "wrong", "none"),
    "constraint": ("met", "missed", "free"),
    "repetition": ("none", "some"),
    "length": ("short", "good", "long"),
    **dict.fromkeys(STYLES, ("none", "some", "many")),
}
"""What a verdict can be about, and the verdicts."""


def surface(piece: str) -> str:
    """A piece of a sentence with the space before it."""
    return piece if piece[0] in ".,!?:\n" else " " + piece


def pieces(sentence: str) -> list[str]:
    """The pieces of a sentence of :mod:`farm.worlds.pocket.words`."""
    return [p if p == "{}" else surface(p) for p in sentence.split("|") if p]


def _text_pieces() -> Iterable[str]:
    yield from (BREAK, BULLET)
    for form in FORMS:
        for sentence in (*form.requests, *form.openings, *form.heads, *form.tails, *form.closings):
            yield from pieces(sentence)
    for group in (*CONSTRAINTS.values(), *STYLES.values()):
        for sentence in group:
            yield from pieces(sentence)
    for topic, words in TOPICS.items():
        yield surface(topic)
        yield from (surface("the " + word) for word in words)


class Vocabulary:
    """All tokens and their ids; :func:`vocabulary` gives the one there is."""

    def __init__(self) -> None:
        text = [p for p in dict.fromkeys(_text_pieces()) if p != "{}"]
        verdicts = [f"<{aspect}:{verdict}>" for aspect, all_of in ASPECTS.items() for verdict in all_of]
        self.tokens: list[str] = [*SPECIALS, *text, *verdicts]
        self.ids: dict[str, int] = {token: i for i, token in enumerate(self.tokens)}
        self.verdicts: NDArray[np.int64] = np.arange(len(self.tokens) - len(verdicts), len(self.tokens))
        self._text = text

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def words(self) -> NDArray[np.int64]:
        """Words in each token, shape [V]: pieces between spaces that have a letter or digit."""
        count = [sum(any(c.isalnum() for c in w) for w in token.split()) for token in self.tokens]
        count[: len(SPECIALS)] = [0] * len(SPECIALS)
        count[self.ids[UNKNOWN]] = 1
        count[int(self.verdicts[0]) :] = [0] * len(self.verdicts)
        return np.array(count)

    @cached_property
    def pattern(self) -> str:
        """A regular expression for one piece of text, or else one unknown word or sign."""
        return rf"(?:{_trie_pattern(self._text)})(?![A-Za-z])|\s?(?:\w+|[^\w\s])"

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of many texts, end to end [sum of T], and the number of tokens of each text [n].

        The same ids as the tokenizer gives, several times as fast.
        """
        find, look_up, unknown = self._compiled.findall, self.ids.get, self.ids[UNKNOWN]
        found = [find(_spaced(text)) for text in texts]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids = np.fromiter((look_up(p, unknown) for text in found for p in text), np.int64, int(lengths.sum()))
        return ids, lengths

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special and verdict tokens are left out."""
        last = int(self.verdicts[0])
        text = "".join(self.tokens[i] for i in ids if len(SPECIALS) <= i < last)
        return text.replace("\n ", "\n").removeprefix(" ")

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The same vocabulary as a tokenizer of the transformers library."""
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel(self.ids, unk_token=UNKNOWN))
        inner.normalizer = normalizers.Sequence(
            [
                normalizers.Prepend(" "),
                normalizers.Replace(Regex(r"^ (?=[.,!?:\n])"), ""),
                normalizers.Replace(Regex(r"\n(?=[^.,!?:\n])"), "\n "),
            ]
        )
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(self.pattern), behavior="removed", invert=True)
        inner.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("\n ", "\n"), decoders.Strip(" ", 1, 0)])
        names = {"pad_token": PAD, "bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}
        verdicts = [self.tokens[i] for i in self.verdicts]
        inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*SPECIALS, *verdicts)])
        return PreTrainedTokenizerFast(
            tokenizer_object=inner, clean_up_tokenization_spaces=False, padding_side="left", **names
        )


def _spaced(text: str) -> str:
    """A text as the concatenation of its pieces."""
    if "\n" in text:
        text = _LINE_START.sub("\n ", text)
    return text if text[:1] in ".,!?:\n" else " " + text


_LINE_START = re.compile(r"\n(?=[^.,!?:\n])")


def _trie_pattern(words: Iterable[str]) -> str:
    """A regular expression for any of the words, longest first; common beginnings stand once, which makes it fast."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}

    def pattern(node: dict[str, Any]) -> str:
        ends = "" in node
        branches = [re.escape(c) + pattern(below) for c, below in node.items() if c]
        if not branches:
            return ""
        return branches[0] if len(branches) == 1 and not ends else f"(?:{'|'.join(branches)})" + "?" * ends

    return pattern(root)


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """The vocabulary of this version of the world."""
    return Vocabulary()
