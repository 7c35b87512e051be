"""Which of the stages that are ready begins first, where several are made at once: the one with the longest way left.

The way of a stage is its own time and the longest way among the stages that read it. What ends last thus begins first,
and no long stage is made alone at the end (list scheduling by the critical path; T. L. Adam, K. M. Chandy and J. R.
Dickson, "A comparison of list schedules for parallel processing systems", 1974). What is made does not depend on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import fmean

from farm.roles.work import Texts
from farm.scheduling.estimate import Estimate
from farm.scheduling.graph import Graph, Node, dependents

TRAINED, READ, WRITTEN = 3.0, 1.0, 2.0
"""Forward passes that take as long as a text that is trained on, read, or sampled token by token, about: in the
demo, on one core, 2.8, 1.2 and 2.0 ms"""


def passes(texts: Texts) -> float:
    """As many forward passes over one text take as long, about."""
    return TRAINED * texts.trained + READ * texts.read + WRITTEN * texts.written


def times(graph: Graph, estimate: Callable[[Node], Estimate]) -> dict[str, float]:
    """Key -> how long each stage takes beside the others.

    Seconds where earlier stages tell; else by the texts that it goes through, at the pace of the stages of which both
    are known; a stage that can say neither takes as long as those of its kind do on average.
    """
    found = {key: seconds for key, node in graph.items() if (seconds := estimate(node).seconds) is not None}
    said = {key: passes(node.texts) for key, node in graph.items() if node.texts is not None}
    both = sum(said[key] for key in found if key in said)
    pace = sum(found[key] for key in found if key in said) / both if both else 1.0
    known = {**{key: pace * of_stage for key, of_stage in said.items()}, **found}
    kinds: dict[str, list[float]] = defaultdict(list)
    for key, time in known.items():
        kinds[graph[key].kind].append(time)
    mean = {kind: fmean(of_kind) for kind, of_kind in kinds.items()}
    return {key: known.get(key, mean.get(node.kind, 0.0)) for key, node in graph.items()}


def ways(graph: Graph, times: Mapping[str, float]) -> dict[str, float]:
    """Key -> the time from the beginning of a stage to the end of the last one that is made from it."""
    below = dependents(graph)
    out: dict[str, float] = {}
    for key in reversed(graph):  # a stage stands before those that need it
        out[key] = times[key] + max((out[other] for other in below[key]), default=0.0)
    return out
