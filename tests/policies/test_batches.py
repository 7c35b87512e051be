"""Sequences cut into batches where padding and the number of batches cost least together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from farm.policies.batches import cheapest_batches, unflatten


def cost(parts: list[NDArray[np.int64]], one_more: int) -> int:
    return sum(len(part) * int(part.max()) + one_more for part in parts)


@pytest.mark.parametrize("seed", range(6))
def test_no_cut_of_the_sorted_rows_is_cheaper(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 9)
    ordered = np.sort(lengths)[::-1]
    for most, one_more in ((80, 5), (1000, 20), (10, 3)):
        found = cheapest_batches(lengths, most, one_more)
        assert sorted(np.concatenate(found)) == list(range(9))
        assert np.all(np.diff(lengths[np.concatenate(found)]) <= 0)
        assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= most for rows in found)
        every = []
        for places in itertools.chain.from_iterable(itertools.combinations(range(1, 9), k) for k in range(9)):
            parts = np.split(ordered, places)
            if all(len(part) == 1 or len(part) * part.max() <= most for part in parts):
                every.append(cost(parts, one_more))
        assert cost([lengths[rows] for rows in found], one_more) == min(every)


def test_rows_without_tokens_are_left_out_and_equal_rows_stay_together() -> None:
    assert cheapest_batches(np.array([0, 0]), 100, 5) == []
    (only,) = cheapest_batches(np.array([7, 0, 7, 7]), 100, 5)
    assert only.tolist() == [0, 2, 3]


def test_tokens_beyond_what_32_bits_of_a_fraction_hold_stay_themselves() -> None:
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    found = unflatten(torch.tensor([2**24 + 1, 3, 2**40 + 1]), mask)
    assert found.tolist() == [[2**24 + 1, 3], [2**40 + 1, 0], [0, 0]]


def test_rows_of_many_lengths_are_hardly_padded() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(4, 0.7, 32), 4, 200).astype(np.int64)
    padded = cost(cheapest_batches(lengths, 2048, 64), 0)
    assert padded < 1.2 * lengths.sum()
