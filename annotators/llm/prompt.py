"""Prompt templates: one YAML file each, in annotators/llm/prompts or the user's own, with a version of its content.

    task       pairwise, rating, ranking, critique, correction, check, match, propose or vote
    verdict    how the answer ends: label (nothing but 1 or 2), line (``Verdict: 1``), json, or text (corrections)
    system     who the model is; {persona} is replaced by the annotator's persona
    user       the question; {items} is replaced by what is judged, {examples} by the examples, {principles} by the
               principles to judge by, numbered
    examples   solved questions, shown in the form of the real ones (optional)

Judged texts stand between tags and are neutralised (annotators/llm/guard.py); they are put in last and in one pass, so
a text that contains ``{items}`` stays that text. The version is a digest of the file: an edited template is another
annotator, and its answers are stored under another key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from annotators.llm.guard import neutral
from farm.base.errors import UserError, nearest
from farm.roles import config, named_configs
from farm.tables.turns import Prompt as Turns
from farm.tables.turns import messages

Task = Literal["pairwise", "rating", "ranking", "critique", "correction", "check", "match", "propose", "vote"]
Form = Literal["label", "line", "json", "text"]
FOLDER = Path(__file__).parent / "prompts"


class Item(NamedTuple):
    """What is judged: an instruction, or a conversation, with one output, two (a pair) or more, and perhaps a text that
    they are compared with."""

    instruction: Turns
    outputs: tuple[str, ...]
    anchor: str | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """What delimits its texts besides the tags of every prompt."""
        spoken = () if isinstance(self.instruction, str) else ("turn",)
        return spoken if self.anchor is None else (*spoken, "anchor")


class Shown(NamedTuple):
    """A pair as it stands in a finished prompt."""

    instruction: str
    first: str
    second: str


class _Example(BaseModel):
    model_config = ConfigDict(extra="forbid")
    instruction: str
    outputs: list[str]
    answer: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    about: str
    task: Task
    verdict: Form
    system: str = ""
    user: str
    examples: list[_Example] = []
    aspects: list[str] = []


@dataclass(frozen=True)
class Prompt:
    """A template as it was loaded."""

    name: str
    task: Task
    form: Form
    system: str
    user: str
    version: str
    examples: tuple[_Example, ...] = ()
    aspects: tuple[str, ...] = ()
    about: str = field(default="", compare=False)

    @property
    def by_principles(self) -> bool:
        """Whether it says by which principles to judge."""
        return "{principles}" in self.user

    def render(self, items: Sequence[Item], persona: str = "", principles: Sequence[str] = ()) -> tuple[str, str]:
        """The system message and the user message for these items."""
        persona = persona.strip() or "You are a careful and impartial reader."
        parts = {"items": _items(items), "examples": self._examples(), "persona": persona, "count": str(len(items))}
        parts["principles"] = "\n".join(f"{k}. {_on_one_line(said)}" for k, said in enumerate(principles, start=1))
        return _fill(self.system, parts).strip(), _fill(self.user, parts).strip()

    def _examples(self) -> str:
        shown = [
            f"<example>\n{_item(Item(e.instruction, tuple(e.outputs)), '')}\n</example>\n{e.answer.strip()}"
            for e in self.examples
        ]
        return "\n\n".join(shown)


def _fill(template: str, parts: dict[str, str]) -> str:
    return re.sub(r"\{(items|examples|persona|count|principles)\}", lambda m: parts[m.group(1)], template)


def clean(text: str, tags: tuple[str, ...] = ()) -> str:
    """A judged text as it stands in a prompt, where it cannot pose as one of these tags, either."""
    return neutral(text, tags).strip()


def _on_one_line(text: str) -> str:
    """A principle, which a model may have written."""
    return " ".join(clean(text).split())


def in_tags(item: Item) -> str:
    """The instruction as it stands in a prompt; of a conversation each turn between tags that say whose it is."""
    if isinstance(item.instruction, str):
        return clean(item.instruction, item.tags)
    turns = [(m["role"], clean(m["content"], item.tags)) for m in messages(item.instruction)]
    return "\n".join(f'<turn of="{role}">\n{text}\n</turn>' for role, text in turns)


def _item(item: Item, attributes: str) -> str:
    lines = [f"<instruction{attributes}>\n{in_tags(item)}\n</instruction{attributes}>"]
    for number, output in enumerate(item.outputs, start=1):
        tag = f"output_{number}{attributes}" if len(item.outputs) > 1 else f"output{attributes}"
        lines.append(f"<{tag}>\n{clean(output, item.tags)}\n</{tag}>")
    if item.anchor is not None:
        lines.append(f"<anchor{attributes}>\n{clean(item.anchor, item.tags)}\n</anchor{attributes}>")
    return "\n".join(lines)


def _items(items: Sequence[Item]) -> str:
    if len(items) == 1:
        return _item(items[0], "")
    return "\n\n".join(f'<pair id="{k}">\n{_item(item, "")}\n</pair>' for k, item in enumerate(items, start=1))


_SHOWN = re.compile(
    r"<instruction>\n(.*?)\n</instruction>\n<output_1>\n(.*?)\n</output_1>\n<output_2>\n(.*?)\n</output_2>", re.DOTALL
)


def shown(user: str) -> list[Shown]:
    """The pairs in a finished user message, examples left out: what a scripted or recorded judge answers from."""
    return [Shown(*found) for found in _SHOWN.findall(re.sub(r"<example>.*?</example>", "", user, flags=re.DOTALL))]


@lru_cache(maxsize=256)
def load(name: str) -> Prompt:
    """A template by name, or by the path of a YAML file.

    Raises:
        UserError: when there is none, or its file is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in FOLDER.glob("*.yaml")]
        raise UserError(f"prompt `{name}`: there is no such template; {nearest(name, known)}")
    data: dict[str, Any] = named_configs.load_mapping(path)
    found = config.validate(_File, data, str(path))
    if "{items}" not in found.user:
        raise UserError(f"{path}: `user` has no {{items}}, so nothing would be judged")
    version = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return Prompt(
        path.stem, found.task, found.verdict, found.system, found.user, version,
        tuple(found.examples), tuple(found.aspects), found.about,
    )  # fmt: skip
