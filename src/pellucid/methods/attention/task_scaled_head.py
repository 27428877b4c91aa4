"""TaSc, its training: a classifier that pools states by attention, each word type scaled by how the task needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive
from pellucid.core.results import Evidence, Learned
from pellucid.engine.task_scaling import States, accuracy, fit_head, states_of
from pellucid.models.subject import Subject

Head = dict[str, np.ndarray]


@method(
    rows=("EVF-11",),
    paper="arXiv:2105.02657",
    takes="labels",
    produces="learned",
    needs=("activations",),
    cost="prompts*F",
)
def task_scaled_head(
    subject: Subject, prompts: Sequence[Any], labels: Sequence[int], *,
    scaling: Literal["lin", "feat", "conv", "none"] = "lin", steps: Positive = 60, decay: NonNegativeFloat = 0.01,
    held_out: Count = 5, seed: Count = 0,
) -> Learned:  # fmt: skip
    """Train a classifier on the model's last states whose attention is scaled by a task's own weight per word type.

    logits = sum_i a_i s_i W h_i + b with a = softmax(h . q / sqrt(d)) and s_i by the word type alone, e being its
    embedding: "lin" u[x] sum_d e_d; "feat" U[x] . e; "conv" the sum of 15 filters of u[x] e; "none" is plain attention.
    The model stays as it is and the head is trained on it, so what is explained is the head, not a classifier that the
    model has already. The evidence compares its accuracy on held-out prompts with plain attention's (Chrysostomou &
    Aletras 2021, arXiv:2105.02657, who train the encoder too).

    Args:
        subject: the model whose states are pooled, from `pellucid.load`.
        prompts: texts, chats or token ids of the task.
        labels: the class of each, from 0.
        scaling: how a word type counts.
        steps: of gradient descent, each over all prompts.
        decay: of weights.
        held_out: one prompt of so many only tests; 0 tests none.
        seed: of the start and the split.

    Returns:
        Learned, whose tensors `task_scaled_attention` takes as `head`.

    Raises:
        InputError: unequal numbers, fewer than two classes, or a class that is missing.
        ModelError: a loss that is no longer finite.
    """
    classes = sorted(set(labels))
    if len(prompts) != len(labels) or len(classes) < 2 or classes != list(range(len(classes))):
        raise InputError(
            f"{len(prompts)} prompts and {len(labels)} labels of the classes {classes} were given; give one label per "
            "prompt, of at least two classes, counted from 0."
        )
    order = np.random.default_rng(seed).permutation(len(prompts))
    tested = set(order[:: max(held_out, 1)].tolist()) if held_out else set[int]()
    data = [states_of(subject, prompt) for prompt in prompts]
    inside, outside = ([i for i in range(len(data)) if (i in tested) == part] for part in (False, True))
    if len({labels[i] for i in inside}) < len(classes):
        raise InputError("A class has no prompt left to train on beside those held out; give more, or held_out=0.")
    given, right = [data[i] for i in inside], [int(labels[i]) for i in inside]
    head = fit_head(given, right, scaling, steps, decay, seed)
    found = Learned(
        title=f"Attention scaled for a task ({scaling}), from {len(inside)} prompts",
        tensors=head,
        apply="task_scaled_attention",
        site="resid_post",
        settings={"scaling": scaling, "classes": len(classes)},
    )
    if not outside:
        return found
    plain = fit_head(given, right, "none", steps, decay, seed)
    return found.with_evidence(_held_out([data[i] for i in outside], [int(labels[i]) for i in outside], head, plain))


def _held_out(data: list[States], labels: list[int], head: Head, plain: Head) -> Evidence:
    own, other = accuracy(data, labels, head), accuracy(data, labels, plain)
    most = float(np.bincount(labels).max() / len(labels))
    return Evidence(
        "held-out accuracy",
        f"Of {len(labels)} prompts that it was not trained on it gets {100 * own:.0f} % right, plain attention "
        f"{100 * other:.0f} %, the most frequent class {100 * most:.0f} %.",
        {"accuracy": own, "plain_attention": other, "most_frequent": most, "prompts": float(len(labels))},
        ok=bool(own > most),
    )
