"""AT2, its training: one weight per attention head, learned once per model from removals in several prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, NonNegativeFloat, Positive, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Learned
from pellucid.engine.game import play
from pellucid.engine.learned_attention import Removals, attention_to_units, correlation, fit_heads, response
from pellucid.models.subject import Subject


@method(
    rows=("N-AT3",),
    paper="arXiv:2504.13752",
    takes="corpus",
    produces="learned",
    needs=("scores", "attention"),
    cost="prompts*(samples+held_out+length+3)*F",
)
def at2_heads(
    subject: Subject, prompts: Sequence[Any], *, target: TargetLike = None, unit: Unit | None = None,
    replacement: Replacement = "delete", length: Positive = 16, samples: Positive = 32, held_out: Count = 16,
    penalty: NonNegativeFloat = 0.01, seed: int = 0,
) -> Learned:  # fmt: skip
    """Learn how much attention of each head counts, so that `at2` needs one forward pass per prompt.

    theta maximises the mean over prompts of corr(y(z), sum_i z_i sum_h theta_h attn_h(source i -> response)) over
    random subsets z of the sources, each kept with chance 1/2; y is the log-probability of the response. It is drawn
    towards equal weights by `penalty`, and scaled so that scores are in units of y. An approximation; the evidence
    gives the correlation on held-out subsets, beside that of plain attention (Cohen-Wang et al. 2025,
    arXiv:2504.13752).

    Args:
        subject: the model, from `pellucid.load`.
        prompts: texts, chats or token ids of the kind that will be explained.
        target: the response; None means the model's own, `length` tokens long, or its prediction.
        unit: the sources: "sentence", "line", "message", "word", "token" or token ranges; None means sentences, and
            tokens where there is no text.
        replacement: what stands for an absent source; the paper deletes it.
        length: tokens of the model's own response.
        samples: random subsets per prompt.
        held_out: further subsets per prompt that only test.
        penalty: pull towards equal weights.
        seed: of the subsets.

    Returns:
        Learned with `theta` [layer, head]; pass it to `at2` as `heads`.

    Raises:
        InputError: no prompts.
    """
    if len(prompts) == 0:
        raise InputError("at2_heads got no prompts; give at least one, of the kind that will be explained.")
    rng, learned, tested, shape = np.random.default_rng(seed), [], [], (0, 0)
    for prompt in prompts:
        kind = unit or ("sentence" if subject.encode(prompt).text else "token")
        game = play(subject, prompt, response(subject, target, length), None, kind, replacement)
        features = attention_to_units(game.question).sum(1)
        shape = features.shape[1:]
        present = rng.random((samples + held_out, game.players)) < 0.5
        outcomes = game.value(present).sum(1)
        flat = features.reshape(game.players, -1)
        learned.append(Removals(flat, present[:samples], outcomes[:samples]))
        tested.append(Removals(flat, present[samples:], outcomes[samples:]))
    theta = fit_heads(learned, penalty)
    found = Learned(
        title=f"AT2 weights of {theta.size} heads, from {len(prompts)} prompts",
        tensors={"theta": theta.reshape(shape)},
        apply="at2",
        site="attn.pattern",
        settings={"replacement": replacement, "samples": samples},
    )
    return found.with_evidence(_held_out(tested, theta)) if held_out > 1 else found


def _held_out(tested: Sequence[Removals], theta: np.ndarray) -> Evidence:
    mean = float(np.mean([correlation(prompt, theta) for prompt in tested]))
    even = float(np.mean([correlation(prompt, np.ones_like(theta)) for prompt in tested]))
    return Evidence(
        "held-out correlation",
        f"On subsets that were not learned from, predicted and real outcomes correlate by {mean:.2f} "
        f"({even:.2f} with equal weights for all heads).",
        {"correlation": mean, "equal_weights": even, "prompts": float(len(tested))},
        ok=bool(mean > 0.5),
    )
