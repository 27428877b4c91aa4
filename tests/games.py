"""Games whose indices are known: tables of worths, written as plainly as their definitions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import torch

from pellucid.engine.coalitions import all_coalitions
from tests import plain


def lookup(table: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the game of a table [2**players, targets]."""
    players = int(np.log2(len(table)))
    return lambda masks: table[masks.astype(np.int64) @ (1 << np.arange(players))]


def rough(players: int, seed: int = 0) -> np.ndarray:
    """Return a game [2**players, 2] of single, pair and higher parts and noise."""
    rng, masks = np.random.default_rng(seed), all_coalitions(players)
    smooth = (
        np.tanh(masks @ rng.normal(size=players)) + masks[:, 0] * masks[:, 2] - masks[:, 1] * masks[:, [2, 3]].all(1)
    )
    return np.stack([smooth, 0.3 * smooth**2], axis=1) + 0.05 * rng.normal(size=(len(masks), 2))


def unanimity(players: int, team: list[int]) -> np.ndarray:
    """Return the game [2**players, 1] that is worth 1 where the whole team is present, else 0."""
    return all_coalitions(players)[:, team].all(1).astype(float)[:, None]


def of_model(model: Any, prompt: list[int], replacement: int) -> np.ndarray:
    """Return the logit of the target for every coalition of tokens, run plainly: [2**tokens, 1]."""
    variants = [
        [t if keep else replacement for t, keep in zip(prompt, present, strict=True)]
        for present in all_coalitions(len(prompt))
    ]
    with torch.no_grad():
        found: np.ndarray = model(input_ids=torch.tensor(variants)).logits[:, -1, [plain.TARGET]].numpy()
    return found


def derivative(table: np.ndarray, members: tuple[int, ...], without: int) -> np.ndarray:
    """Return the discrete derivative of a game in `members` at the coalition with the bits `without`."""
    total = np.zeros(table.shape[1])
    for size in range(len(members) + 1):
        for chosen in combinations(members, size):
            total = total + (-1) ** (len(members) - size) * table[without | sum(1 << i for i in chosen)]
    return total


def mean_derivative(table: np.ndarray, members: tuple[int, ...], weight: Callable[[int], float]) -> np.ndarray:
    """Return the sum over all coalitions T of the others of weight(|T|) times the derivative at T."""
    players = int(np.log2(len(table)))
    bits = sum(1 << i for i in members)
    total = np.zeros(table.shape[1])
    for without in range(2**players):
        if not without & bits:
            total = total + weight(without.bit_count()) * derivative(table, members, without)
    return total
