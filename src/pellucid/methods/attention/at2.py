"""AT2: attention as attribution, with a learned weight for each head."""

from __future__ import annotations

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import NonNegativeFloat, Positive, PromptLike, Replacement, TargetLike, Unit
from pellucid.core.results import Evidence, Learned, Scores
from pellucid.engine.coalitions import all_coalitions
from pellucid.engine.game import Game, play
from pellucid.engine.learned_attention import Removals, attention_to_units, correlation, fit_heads, response
from pellucid.models.subject import Subject


@method(
    rows=("N-AT3",),
    paper="arXiv:2504.13752",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("scores", "attention"),
    cost="(samples+length+3)*F",
)
def at2(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit | None = None, heads: Learned | None = None, replacement: Replacement = "delete", length: Positive = 16,
    samples: Positive = 32, penalty: NonNegativeFloat = 0.1, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each source by the attention that the response pays to it, each head by its learned weight.

    R_i = sum_h theta_h attn_h(source i -> response): positive supports the response. With `heads` from `at2_heads` this
    takes one forward pass; without, theta is fitted to random removals of this prompt's own sources. An approximation
    of what removing sources does to the log-probability; the evidence says how good a fit it was
    (Cohen-Wang et al. 2025, arXiv:2504.13752).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: the response; None means the model's own, `length` tokens long, or its prediction.
        contrast: the alternative to compare with (attention is that of the target's own run).
        unit: the sources: "sentence", "line", "message", "word", "token" or token ranges; None means sentences, and
            tokens where there is no text.
        heads: what `at2_heads` learned for this model.
        replacement: what stands for an absent source while theta is fitted here.
        length: tokens of the model's own response.
        samples: random subsets that theta is fitted to here (all, where they are no more).
        penalty: pull towards equal weights while fitting here.
        seed: of the subsets.

    Returns:
        Scores [unit], or [unit, target] for a target with `each`, which sum to the scores of the whole response.

    Raises:
        InputError: weights of a model with other heads.
    """
    kind = unit or ("sentence" if subject.encode(prompt).text else "token")
    game = play(subject, prompt, response(subject, target, length), contrast, kind, replacement)
    attention = attention_to_units(game.question)
    if heads is None:
        theta, evidence = _fitted(game, attention.sum(1), samples, penalty, seed)
    else:
        theta, evidence = _given(heads, attention.shape[2:]), ()
    result = game.question.answer(
        np.einsum("utlh,lh->ut", attention, theta), "AT2",
        unit=f"predicted {game.question.readout.unit}",
        sign="positive supports the response, negative speaks against it",
    )  # fmt: skip
    return result.with_evidence(*evidence)


def _given(heads: Learned, shape: tuple[int, ...]) -> np.ndarray:
    theta = heads.tensors.get("theta", np.zeros(0))
    if theta.shape != shape:
        raise InputError(
            f"The heads given hold theta of shape {theta.shape}, but this model has {shape[0]} layers of {shape[1]} "
            "heads; pass what at2_heads learned for this model."
        )
    return theta


def _fitted(
    game: Game, attention: np.ndarray, samples: int, penalty: float, seed: int
) -> tuple[np.ndarray, tuple[Evidence, ...]]:
    exact = 2.0**game.players <= samples
    rng = np.random.default_rng(seed)
    present = all_coalitions(game.players) if exact else rng.random((samples, game.players)) < 0.5
    seen = Removals(attention.reshape(game.players, -1), present, game.value(present).sum(1))
    theta = fit_heads([seen], penalty)
    found = correlation(seen, theta)
    evidence = Evidence(
        "fit",
        f"On the {len(present)} subsets that it was fitted to, predicted and real outcomes correlate by {found:.2f}.",
        {"correlation": found, "subsets": float(len(present))},
        ok=bool(found > 0.5),
    )
    return theta.reshape(attention.shape[1:]), (evidence,)
