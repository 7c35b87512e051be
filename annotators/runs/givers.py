"""Who gives the feedback of a run, and which kind: from a name, a YAML, a spec, a class, or the giver itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from annotators.face.options import AnnotateOptions
from annotators.noise.both_orders import BothOrders
from farm.asking.givers import gives, name_of, require_gives
from farm.base.errors import UserError
from farm.feedback.kind import FeedbackKind
from farm.feedback.kind import kind as kind_of
from farm.roles import config, named_configs
from farm.roles.givers import Giver
from farm.roles.protocols import Context, Features, World
from farm.storage.store import Store


def built(
    annotators: Any, settings: Sequence[str] | Mapping[str, Any], options: AnnotateOptions, context: Context
) -> tuple[FeedbackKind, Any]:
    """The kind and the giver.

    Raises:
        UserError: where the giver does not give the kind, or gives several and none is named.
    """
    role: Any = Giver if options.kind is None else kind_of(options.kind).giver
    giver = annotators
    if isinstance(annotators, (str, Path)) and not isinstance(settings, Mapping):
        path = named_configs.find("annotators", str(annotators))
        giver = config.build(role, config.override(named_configs.load_mapping(path), settings), context, str(path))
    elif isinstance(annotators, (str, Path, dict, type)):
        changes = settings if isinstance(settings, Mapping) else {}
        giver = config.build(role, config.spec_of(annotators, changes), context, "farm.annotate")
    elif settings:
        name = next(iter(settings))
        raise UserError(f"`{name}` is no option, and a setting is for annotators that are built here: set it there")
    kind = kind_of(options.kind or _default(giver))
    require_gives(giver, kind)
    return kind, BothOrders(giver) if options.order == "both" else giver


def _default(giver: Any) -> str:
    """Pairs, or the one kind that is given."""
    given = gives(giver)
    if "pairs" in given:
        return "pairs"
    if len(given) != 1:
        what = f"gives {' and '.join(given)}: choose with --kind" if given else "gives no kind of feedback"
        raise UserError(f"{name_of(giver)}: {type(giver).__name__} {what}")
    return given[0]


def context_for(world: str | None, store: Store) -> Context:
    """What annotators may ask for: a world and its features, or the features of any text."""
    if world is not None:
        found = config.build(World, world, Context(store=store), "--world")
        return Context(world=found, features=found.features, store=store)
    from farm.worlds.text_features import TextFeatures

    features: Features = TextFeatures()
    return Context(features=features, store=store)
