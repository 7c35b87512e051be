"""What ``farm power`` does: the plan that the options ask for."""

from __future__ import annotations

from eval.face.options import PowerOptions
from eval.rates import power as planning
from farm.base.errors import OptionError


def planned(options: PowerOptions) -> planning.Power:
    """The number of annotations for a difference, or the difference that a number shows."""
    if (options.difference is None) == (options.annotations is None):
        raise OptionError("give either `difference` (percent points) or `annotations`")
    if options.per_cluster is None and options.icc:
        raise OptionError("`icc` needs `per_cluster`: how many rows a cluster has")
    if options.per_cluster is not None and options.design_effect != 1:
        raise OptionError("`design_effect` and `per_cluster` say the same thing; give one of them")
    design = options.design_effect
    if options.per_cluster is not None:
        design = planning.design_effect(options.per_cluster, options.icc)
    settings = {
        "power": options.power,
        "significance": options.significance,
        "flip_rate": options.flip_rate,
        "design_effect": design,
    }
    paired, variance = options.paired, options.variance
    if options.difference is not None:
        return planning.needed(options.difference / 100, paired=paired, variance=variance, **settings)
    return planning.detectable(options.annotations or 0, paired=paired, variance=variance, **settings)
