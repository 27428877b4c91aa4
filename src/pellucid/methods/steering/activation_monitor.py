"""Activation monitor: a linear probe that watches for a behaviour, judged where alarms must be rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.params import Fraction, PositiveFloat, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.batched_probes import logistic_probes
from pellucid.engine.directions import Contrast, area_under_roc, contrast
from pellucid.models.subject import Subject


@method(
    rows=("N-ST9",),
    paper="arXiv:2502.03407",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def activation_monitor(
    subject: Subject, positive: Sequence[Any], negative: Sequence[Any], *, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, position: int | str = "mean", false_alarms: Fraction = 0.01,
    strength: PositiveFloat = 0.1, test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn a probe per layer that raises an alarm on a behaviour, at a threshold of few false alarms.

    Logistic probes on standardised activations, all layers in one solve. The layer is chosen, and the threshold set to
    the quantile of the negative prompts, on the prompts learned from; the evidence has the area under the ROC curve and
    the recall at that rate of false alarms on prompts held out (Goldowsky-Dill et al. 2025, arXiv:2502.03407).
    `monitored_tokens` shows the score of each token. Exact to the optimum; with n negative prompts a rate below 1/n
    cannot be told from none.

    Args:
        subject: the model, from `pellucid.load`.
        positive: prompts (with replies) that show the behaviour.
        negative: prompts that do not.
        site: a part of the residual stream.
        layers: which blocks; None means all.
        position: where to read: an index, negative from the end, or "mean" over the tokens.
        false_alarms: share of the negative prompts that may raise an alarm.
        strength: of the data against the probes' penalty, scikit-learn's C.
        test_share: share of the prompts that only test.
        seed: of the split.

    Returns:
        Learned with `directions` [layer, dimension] (unit), `scales` (mean norms), `probes` and `biases` such that the
        logit is h . probe + bias, and `alarms` [layer], the logit from which on an alarm is raised.

    Raises:
        InputError: an empty set.
        SiteError: a site that the model lacks.
    """
    data = contrast(
        subject, positive, negative, site, layers=layers, position=position, test_share=test_share, seed=seed
    )
    probes, biases, logits = _fitted(data, strength)
    harmless = (data.labels == 0) & ~data.held
    alarms = np.array([_alarm(one[harmless], false_alarms) for one in logits])
    margin = [one[(data.labels == 1) & ~data.held].mean() - one[harmless].mean() for one in logits]
    spreads = [one[~data.held].std() for one in logits]
    at = int(np.argmax(np.array(margin) / np.maximum(spreads, 1e-12)))
    directions = probes / np.maximum(np.linalg.norm(probes, axis=-1, keepdims=True), 1e-30)
    return Learned(
        title="Activation monitor",
        tensors={
            "directions": directions, "scales": data.read.norms, "probes": probes, "biases": biases,
            "alarms": alarms,
        },
        apply="direction",
        site=data.read.site,
        settings={"layers": list(data.read.layers), "layer": data.read.layers[at], "position": position},
        evidence=(_told(data, logits, alarms, at, false_alarms),),
    )  # fmt: skip


def _fitted(data: Contrast, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probes [layer, dimension] and biases [layer] for plain activations, and all logits [layer, prompt]."""
    values, learned = torch.as_tensor(data.read.values).double(), torch.as_tensor(~data.held)
    centre = values[:, learned].mean(1, keepdim=True)
    spread = values[:, learned].std(1, correction=0, keepdim=True).clamp(min=1e-12)
    labels = torch.as_tensor(data.labels)
    fitted = logistic_probes((values[:, learned] - centre) / spread, labels[learned], strength=strength)
    probes = fitted.weights / spread[:, 0]
    biases = fitted.biases - (centre[:, 0] * probes).sum(-1)
    logits = (values @ probes[:, :, None])[..., 0] + biases[:, None]
    return probes.numpy(), biases.numpy(), logits.numpy()


def _told(data: Contrast, logits: np.ndarray, alarms: np.ndarray, at: int, rate: float) -> Evidence:
    """Return how well the probes [layer, prompt] tell the tested prompts apart, and the chosen layer's alarms."""
    tested = data.held if data.held.any() else ~data.held
    areas = tuple(area_under_roc(data.labels[tested], one[tested]) for one in logits)
    raised = logits[at] > alarms[at]
    recall, false = (float(raised[tested & (data.labels == label)].mean()) for label in (1, 0))
    best = _recall(data.labels[tested], logits[at][tested], rate)
    return Evidence(
        "alarms",
        f"In layer {data.read.layers[at]}, on {int(tested.sum())} prompts "
        f"{'held out' if data.held.any() else 'learned from'}: area under the ROC curve {areas[at]:.3f} (guessing "
        f"0.5), recall {100 * best:.0f} % at {100 * rate:g} % false alarms; the threshold set beforehand finds "
        f"{100 * recall:.0f} % with {100 * false:.1f} % false alarms.",
        {"auroc": areas[at], "recall_at_rate": best, "recall": recall, "false_alarms": false},
        {"x": tuple(map(float, data.read.layers)), "area under the ROC curve": areas},
        ok=bool(areas[at] > 0.5) if data.held.any() else None,
    )


def _alarm(negatives: np.ndarray, rate: float) -> float:
    """Return the least threshold above which at most a share `rate` of the negatives lie."""
    ordered = np.sort(negatives)[::-1]
    return float(ordered[min(int(np.floor(rate * len(ordered))), len(ordered) - 1)])


def _recall(labels: np.ndarray, logits: np.ndarray, rate: float) -> float:
    """Return the recall at the threshold that these negatives allow."""
    return float((logits[labels == 1] > _alarm(logits[labels == 0], rate)).mean())
