"""What methods and models say that they need, checked against what the experiment has, before anything is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farm.base.errors import UserError, nearest
from farm.experiments.feedback import Asked
from farm.feedback.kind import kinds
from farm.roles.protocols import Method, asks

if TYPE_CHECKING:
    from farm.experiments.setting import Setting

OTHER = ("demonstrations", "responses", "user")
"""what may be needed besides feedback and models"""
_MOVED = {"preferences": "pairs", "annotator": "pairs, among `asks`"}
"""names of the first edition -> what they are called now"""


def checked(setting: Setting, who: str, method: Method, within: tuple[str, ...] = ()) -> frozenset[str]:
    """What a method needs.

    Args:
        within: the models that wait for this one, where it is one.

    Raises:
        UserError: it is no name of a kind, a model or a table, or not there, or cannot be asked for.
    """
    for need in sorted(method.needs):
        _check(setting, f"{setting.origin}: {who} needs `{need}`", need, within)
    for kind in sorted(asks(method)):
        where = f"{setting.origin}: {who} asks for `{kind}`"
        if kind not in kinds():
            raise UserError(f"{where}, which is no kind of feedback; {nearest(kind, kinds())}")
        said = setting.sources.feedback.get(kind)
        if said is None:
            raise UserError(f"{where}, and `feedback` does not say who gives them")
        if not isinstance(said, Asked):
            raise UserError(f"{where} while it learns, and they are given from {said.source}: nobody can be asked")
    return method.needs


def check(setting: Setting) -> None:
    """Check all methods and the models that they need, and that the world has demonstrations where they are needed."""
    for name, needed in setting.needs.items():
        if "demonstrations" in needed and setting.world.demonstrations(1) is None:
            raise UserError(f"{setting.origin}: the method {name} needs `demonstrations`, and this world has none")


def _check(setting: Setting, where: str, need: str, within: tuple[str, ...]) -> None:
    if need in kinds():
        said = setting.sources.feedback.get(need)
        if said is None:
            raise UserError(f"{where}, and `feedback` does not say who gives them")
        if (lack := setting.sources.lack(need)) is not None:
            raise UserError(f"{setting.origin}: feedback.{need}: {lack}")
        if isinstance(said, Asked) and said.by in setting.models:
            _check(setting, f"{setting.origin}: feedback.{need}: `by` needs `{said.by}`", str(said.by), within)
    elif need in setting.models:
        if need in within:
            raise UserError(f"{where}, which needs this model in turn")
        checked(setting, f"the model {need}", setting.fitting(need), (*within, need))
    elif need == "user":
        if getattr(setting.experiment, "user", None) is None:
            raise UserError(f"{where}, and the experiment has no `user`; set `user`, for example try_again")
    elif need in ("reward_model", "preference_model"):
        raise UserError(f"{where}, which is null; set `{need}`, or leave out what needs it")
    elif need not in OTHER:
        if need in _MOVED:
            raise UserError(f"{where}, which is called {_MOVED[need]} now")
        raise UserError(f"{where}, which is not there; {nearest(need, [*kinds(), *OTHER, *setting.models])}")
