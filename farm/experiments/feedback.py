"""What an experiment says of its responses and of the feedback on them.

    responses: {prompts: 2000, per_prompt: 4, temperature: 1.0, writers: [sft]}  # or {from: FILE or hub data set}
    feedback:
      pairs: training                      # who gives it, as anywhere; in full, with which responses are compared:
      ratings: {annotator: rater, n: 1}    # annotator, design, by (whose scores a design by score takes), n
      reactions: {from: liked.jsonl, map: {completion: answer}}  # given: nobody is asked

Without a word of it, pairs of two responses are put before ``annotator``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from farm.base.errors import UserError, nearest
from farm.feedback.kind import kinds
from farm.roles import config
from farm.roles.config import Spec


class From(BaseModel):
    """A table that the user has."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    source: str = Field(alias="from")
    """a file, or a data set of the hub: owner/name, owner/name:config"""
    map: dict[str, str] = {}
    """a field of its format -> the column that it is called there"""


class Responses(BaseModel):
    """The responses to training instructions that feedback is given on; made once, and shared by all kinds of it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    prompts: int | None = Field(default=None, ge=1)
    """to how many instructions; ``sizes.pairs`` where it is left out"""
    per_prompt: int = Field(default=2, ge=1)
    """of each writer"""
    temperature: float | None = Field(default=None, gt=0)
    """the experiment's where it is left out"""
    writers: list[Literal["sft", "base"]] = Field(default=["sft"], min_length=1)
    """the SFT policy, or the world's own"""
    source: str | None = Field(default=None, alias="from")
    """a file of model outputs, or a data set of the hub, in the place of responses that are written"""
    map: dict[str, str] = {}
    """a field of its format -> the column that it is called there"""


class Asked(BaseModel):
    """Feedback that somebody is asked for."""

    model_config = ConfigDict(extra="forbid")

    annotator: Spec | None = None
    """who; the experiment's ``annotator`` where it is left out"""
    design: str | None = None
    """which responses are put together, one of the kind's (farm/feedback/designs.py)"""
    by: str | None = None
    """of a design by score: ``ratings``, or the name of a model"""
    n: int = Field(default=1, ge=1)
    """at most so many rows of an instruction, of designs that draw them"""


def asked_or_given(said: Any, origin: str) -> Asked | From:
    """One entry of ``feedback``.

    Raises:
        UserError: it is none of the forms.
    """
    if said is None or isinstance(said, str):
        return Asked(annotator=said)
    if not isinstance(said, Mapping):
        raise UserError(f"{origin}: name who gives it, or say {{annotator, design, by, n}} or {{from, map}}")
    if "use" in said or "class" in said:
        return Asked(annotator=dict(said))
    if "from" in said or "source" in said:
        return config.validate(From, said, origin)
    return config.validate(Asked, said, origin)


def check_kinds(said: Mapping[str, Any], origin: str) -> None:
    """Refuse a kind of feedback that there is not."""
    for name in said:
        if name not in kinds():
            raise UserError(f"{origin}: feedback: there is no kind `{name}`; {nearest(name, kinds())}")
