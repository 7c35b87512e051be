"""Log-probabilities of chosen tokens: those of a plain log-softmax, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from farm.policies import likelihoods
from farm.policies.likelihoods import chosen


def given(n: int = 50, width: int = 8, vocabulary: int = 300) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n, width, generator=generator, requires_grad=True)
    head = (3 * torch.randn(vocabulary, width, generator=generator)).requires_grad_()
    targets = torch.randint(vocabulary, (n,), generator=generator)
    return states, head, targets, torch.randn(n, generator=generator)


def plain(states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return torch.log_softmax(states @ head.T, -1).gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("at_once", [2**26, 300 * 7])
@pytest.mark.parametrize("block", [2**20, 300 * 3])
def test_values_and_gradients_are_those_of_a_log_softmax(
    at_once: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihoods, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(likelihoods, "BLOCK", block)
    states, head, targets, weights = given()
    found = chosen(lambda part: part @ head.T, states, targets, len(head))
    expected = plain(states, head, targets)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    ours = torch.autograd.grad((weights * found).sum(), (states, head))
    theirs = torch.autograd.grad((weights * expected).sum(), (states, head))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_gradient_of_zero_and_one_row_alone() -> None:
    states, head, targets, _ = given()
    found = chosen(lambda part: part @ head.T, states, targets, len(head))
    found[3].backward()
    assert states.grad is not None
    assert set(states.grad.abs().sum(1).nonzero()[:, 0].tolist()) == {3}
    with torch.no_grad():
        torch.testing.assert_close(chosen(lambda part: part @ head.T, states, targets, len(head)), found)


def test_no_second_table_of_logits_is_made() -> None:
    states, head, targets, weights = given()
    places: list[int] = []

    def logits_of(part: Tensor) -> Tensor:
        logits = part @ head.T
        places.append(logits.data_ptr())
        logits.register_hook(lambda gradient: places.append(gradient.data_ptr()))
        return logits

    (weights * chosen(logits_of, states, targets, len(head))).sum().backward()
    assert len(places) == 2 and places[0] == places[1]


def test_a_second_backward_pass_is_refused_and_not_wrong() -> None:
    states, head, targets, _ = given()
    found = chosen(lambda part: part @ head.T, states, targets, len(head)).sum()
    found.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        found.backward()
