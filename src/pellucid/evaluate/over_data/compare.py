"""Whether two methods differ over the same examples: a paired test, corrected for how many were made."""

from __future__ import annotations

import numpy as np

DRAWS = 100_000
CHUNK = 4096
ROUNDING = 1e-9


def sign_flip_test(differences: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Return two-sided p-values of "the mean difference is 0" per pair: [pairs].

    If two methods do equally well, each example's difference is as likely to have the other sign (Fisher 1935). The
    p-value is the share of sign patterns whose mean is at least as far from 0 as the one found: of all 2**examples
    where they are no more than `draws`, which is exact, else of `draws` random ones and the one found, so that none is
    below 1 / (draws + 1). NaN counts for nothing; a pair without any difference has 1.

    Args:
        differences: one per example and pair of methods: [examples, pairs].
        seed: of the random signs.
        draws: number of random sign patterns.
    """
    known = np.nan_to_num(np.asarray(differences, dtype=np.float64), nan=0.0)
    examples, pairs = known.shape
    found = np.abs(known.sum(0))
    bar = found - ROUNDING * np.abs(known).sum(0)
    beaten, exact = np.zeros(pairs), 2**examples <= draws if examples < 60 else False
    count = 2**examples if exact else draws
    rng = np.random.default_rng(seed)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if exact:
            bits = np.arange(start, start + size)[:, None] >> np.arange(examples)[None] & 1
        else:
            bits = rng.integers(2, size=(size, examples), dtype=np.int8)
        beaten += (np.abs((2.0 * bits - 1.0) @ known) >= bar).sum(0)
    return beaten / count if exact else (beaten + 1) / (count + 1)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values corrected for the number of tests by Holm's step-down method (1979): [tests].

    The k-th smallest of n is multiplied by n - k + 1, and none may be below one that was smaller. Where they are
    compared with 0.05, the chance of any false finding among all tests is at most 0.05, however they depend on each
    other. NaN is no test and stays.

    Args:
        p_values: one per test: [tests].
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    corrected = np.full_like(p_values, np.nan)
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return corrected
