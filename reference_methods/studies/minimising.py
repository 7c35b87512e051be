"""The least of a loss of a table of numbers, by its gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from farm.base.arrays import Floats


def argmin(loss: Callable[[Tensor], Tensor], start: Floats, rounds: int = 5000) -> Floats:
    """Where L-BFGS ends that begins at ``start``, in its shape; float64."""

    def seen(values: Floats) -> tuple[float, Floats]:
        leaf = torch.from_numpy(values).view(start.shape).requires_grad_()
        total = loss(leaf)
        total.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return float(total.detach()), leaf.grad.flatten().numpy().copy()

    options = {"maxiter": rounds, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(seen, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x).reshape(start.shape)
