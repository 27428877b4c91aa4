"""A logistic probe per attention head, all in one solve, and the heads that they choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pellucid.core.results import Evidence, Learned
from pellucid.engine.batched_probes import logistic_probes
from pellucid.engine.directions import Contrast


@dataclass(frozen=True, eq=False)
class HeadProbes:
    """Probes `weights` [layer, head, width], `biases` [layer, head] and their accuracy on tested prompts."""

    weights: np.ndarray
    biases: np.ndarray
    accuracies: np.ndarray
    chance: float

    def best(self, count: int) -> list[list[int]]:
        """Return the (layer index, head) pairs of largest accuracy, most accurate first."""
        order = np.argsort(-self.accuracies, axis=None, kind="stable")[: min(count, self.accuracies.size)]
        return [[int(i) for i in np.unravel_index(at, self.accuracies.shape)] for at in order]


def probed_heads(values: np.ndarray, labels: np.ndarray, held: np.ndarray, strength: float) -> HeadProbes:
    """Fit a probe to each head's values [layer, prompt, head, width] and test it on the prompts held out, if any."""
    layers, _, heads, width = values.shape
    flat = torch.as_tensor(np.moveaxis(values, 2, 1)).reshape(layers * heads, -1, width)
    known = torch.as_tensor(labels)
    learned, tested = torch.as_tensor(~held), torch.as_tensor(held if held.any() else ~held)
    fitted = logistic_probes(flat[:, learned], known[learned], strength=strength)
    right = (fitted.logits(flat[:, tested]) > 0) == (known[tested] > 0)
    shares = float(known[tested].double().mean())
    return HeadProbes(
        fitted.weights.reshape(layers, heads, width).numpy(),
        fitted.biases.reshape(layers, heads).numpy(),
        right.double().mean(-1).reshape(layers, heads).numpy(),
        max(shares, 1 - shares),
    )


def head_result(
    title: str, data: Contrast, probes: HeadProbes, count: int, directions: np.ndarray, scales: np.ndarray, *,
    settings: dict[str, Any],
) -> Learned:  # fmt: skip
    """Return directions of heads [layer, head, ..., width] with their scales as a result; the best heads are chosen."""
    layers = data.read.layers
    chosen = [[layers[at], head] for at, head in probes.best(count)]
    ordered = np.sort(probes.accuracies, axis=None)[::-1]
    taken, tested = ordered[: len(chosen)], int(data.held.sum()) or len(data.labels)
    check = Evidence(
        "accuracy of the heads",
        f"On {tested} prompts {'held out' if data.held.any() else 'they were fitted to'}, the probes of the "
        f"{len(chosen)} chosen heads are right on {100 * taken.mean():.1f} % (best {100 * taken[0]:.1f} %, all heads "
        f"{100 * ordered.mean():.1f} %, always the larger class {100 * probes.chance:.1f} %).",
        {"chosen": float(taken.mean()), "best": float(taken[0]), "all": float(ordered.mean()), "chance": probes.chance},
        {"x": tuple(float(i) for i in range(len(ordered))), "accuracy, heads in order": tuple(ordered.tolist())},
        ok=bool(taken.mean() > probes.chance) if data.held.any() else None,
    )
    return Learned(
        title=title,
        tensors={
            "directions": directions, "scales": scales, "accuracies": probes.accuracies,
            "probes": probes.weights, "biases": probes.biases,
        },
        apply="direction",
        site="attn.z",
        settings={"layers": list(layers), "heads": chosen, **settings},
        evidence=(check,),
    )  # fmt: skip
