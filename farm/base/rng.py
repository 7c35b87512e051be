"""Keyed randomness: a draw depends on (seed, purpose, ids) and on nothing else.

There is no generator whose state could be advanced in another order. Every draw is a hash of its key, so shuffling,
batching, concurrency and resuming change no draw, and a draw can be repeated years later from its row.

Strings are hashed with BLAKE2b to 64 bits; keys are mixed with the finaliser of SplitMix64 (Steele, Lea and Flood,
"Fast splittable pseudorandom number generators", 2014), vectorised over numpy arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


def text_id(text: str) -> int:
    """The 64-bit id of one string."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def text_ids(texts: Iterable[str]) -> Ids:
    """The 64-bit ids of many strings, shape [n]; each distinct string is hashed once."""
    to_list = getattr(texts, "tolist", None)  # a pandas column is several times faster as a list
    listed: list[str] = to_list() if to_list is not None else list(texts)
    distinct = dict.fromkeys(listed)
    blake = hashlib.blake2b
    digests = b"".join([blake(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in distinct])
    ids = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    if len(distinct) == len(listed):
        return ids
    place = dict(zip(distinct, range(len(distinct)), strict=True))
    return ids[np.fromiter(map(place.__getitem__, listed), dtype=np.int64, count=len(listed))]


def _mix(z: Ids) -> Ids:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * _M1
        z = (z ^ (z >> np.uint64(27))) * _M2
        return z ^ (z >> np.uint64(31))


def combine(*ids: Ids | int) -> Ids:
    """One id from several, order mattering; arrays broadcast."""
    out = np.zeros(1, dtype=np.uint64)
    for part in ids:
        value = np.asarray(part, dtype=np.uint64) if not isinstance(part, int) else np.uint64(part % 2**64)
        with np.errstate(over="ignore"):
            out = _mix((out + _GOLDEN) ^ _mix(np.asarray(value + _GOLDEN)))
    return out


def unordered(first: Ids, second: Ids) -> Ids:
    """An id of the set {first, second}: the same for both orders."""
    return combine(np.minimum(first, second), np.maximum(first, second))


def key(seed: int, purpose: str) -> int:
    """The 64-bit key of a seed and a purpose, to be combined with ids."""
    return text_id(f"{seed}\x1f{purpose}")


def bits(seed: int, purpose: str, *ids: Ids | int) -> Ids:
    """Uniform 64-bit words, one for each (broadcast) id."""
    return combine(key(seed, purpose), *ids)


def uniform(seed: int, purpose: str, *ids: Ids | int) -> NDArray[np.float64]:
    """Uniform draws in the open interval (0, 1), one for each id."""
    return ((bits(seed, purpose, *ids) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, purpose: str, *ids: Ids | int) -> NDArray[np.float64]:
    """Standard normal draws, one for each id (inverse of the distribution function)."""
    from scipy.special import ndtri

    return np.asarray(ndtri(uniform(seed, purpose, *ids)))


def integers(n: int, seed: int, purpose: str, *ids: Ids | int) -> NDArray[np.int64]:
    """Uniform draws from 0 .. n-1, one for each id."""
    if n < 1:
        raise ValueError(f"cannot draw from {n} values")
    return np.minimum((uniform(seed, purpose, *ids) * n).astype(np.int64), n - 1)


def choice(weights: Sequence[float], seed: int, purpose: str, *ids: Ids | int) -> NDArray[np.int64]:
    """Draws of an index with probability proportional to ``weights``, one for each id."""
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    if not cumulative.size or cumulative[-1] <= 0:
        raise ValueError("weights must have a positive sum")
    draws = uniform(seed, purpose, *ids) * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, draws, side="right"), cumulative.size - 1).astype(np.int64)


def permutation(ids: Ids, seed: int, purpose: str) -> NDArray[np.int64]:
    """The order of rows by a keyed draw: which row comes first depends on the ids, not on their positions."""
    return np.argsort(bits(seed, purpose, ids), kind="stable")


def generator(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A numpy generator of its own for (seed, purpose, ids), for draws that are made once and in one order."""
    return np.random.Generator(np.random.Philox(key=int(combine(key(seed, purpose), *ids)[0])))


def torch_seed(seed: int, purpose: str, *ids: int) -> int:
    """A seed for ``torch.Generator.manual_seed`` of its own for (seed, purpose, ids)."""
    return int(combine(key(seed, purpose), *ids)[0] >> np.uint64(1))
