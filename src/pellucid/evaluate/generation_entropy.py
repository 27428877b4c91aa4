"""Generation entropy: whether the model still writes varied text, or repeats itself since it was changed."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.core.errors import InputError
from pellucid.core.metadata import metric
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence
from pellucid.engine.continuations import need_speaker
from pellucid.evaluate._fluency import entropies, written
from pellucid.models.subject import Subject


@metric(
    rows=("EVE-3",),
    paper="arXiv:2202.05262",
    takes="models",
    produces="evidence",
    better="higher",
    needs=("generate",),
    cost="pairs*tokens*2*F",
)
def generation_entropy(
    subject: Subject, edited: Subject, prompts: Sequence[str], *, tokens: Positive = 100, top: Positive = 5,
    seed: Count = 0,
) -> Evidence:  # fmt: skip
    """Return the mean n-gram entropy of what the model writes after the change, and before.

    GE = (2/3 H2 + 4/3 H3) / 2 in bits, H_n the entropy of the text's own n-gram frequencies over words and signs (Meng
    et al. 2022, arXiv:2202.05262). Text is written until the model ends it or `tokens` are there; each token is drawn
    among the `top` likeliest ones, with the same random numbers before and after. A model that repeats itself has a
    low GE, and so has one that writes little, so compare with the value before and read `words`, the words per text.
    Higher is better. A prompt whose text is empty counts 0. Sampled; the interval is over prompts.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        prompts: beginnings of texts.
        tokens: most tokens of a text.
        top: likeliest tokens to draw from; 1 is greedy.
        seed: of the draws and of the bootstrap.

    Returns:
        Evidence with `value`, `before` and `change` in bits, and `words`, each with its 95 % bootstrap interval.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no prompt.
    """
    for one in (subject, edited):
        need_speaker(one, "Generation entropy")
    if not prompts:
        raise InputError("No prompt was given; give one or more beginnings of texts.")
    texts = [written(one, prompts, tokens, top, seed) for one in (subject, edited)]
    return entropies(*texts, seed=seed)
