"""Attention views: where each head looks, from every token to every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Scores
from pellucid.engine.head_patterns import head_names, one_of, patterns
from pellucid.engine.question import ask
from pellucid.models.subject import Subject


@method(
    rows=("ATT-1",),
    paper="arXiv:1906.05714",
    takes="prompt",
    produces="scores",
    axes=("head", "query", "key"),
    needs=("attention",),
    cost="3*F",
)
def attention_views(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Scores:  # fmt: skip
    """Show the attention weights of chosen heads, each head a grid from the token that looks to the token looked at.

    A_h[i, j] = softmax_j(q_i . k_j / sqrt(width)); each row is a distribution over tokens. Exact, but no statement
    about what the output rests on: values, later layers and the residual stream are not in it (Vig 2019,
    arXiv:1906.05714). For why a head looks there, see `query_key_products`.

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is shown.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        layers: a layer or several, negative ones from the last; None means all. Weights are computed there alone.
        heads: a head or several in each of these layers; None means all.

    Returns:
        Scores [head, query, key]; heads are named "layer.head".

    Raises:
        InputError: a layer or head that the model lacks.
    """
    question = ask(subject, prompt, target=target, unit="token+special")
    found = patterns(question.subject, question.tokens, layers)
    names = head_names(found)
    if heads is not None:
        wanted = [heads] if isinstance(heads, int) else heads
        chosen = {n: [one_of(head, len(values), "head") for head in wanted] for n, values in found.items()}
        names = tuple(f"{layer}.{head}" for layer, some in chosen.items() for head in some)
        found = {layer: values[chosen[layer]] for layer, values in found.items()}
    pieces = tuple(piece or f"⟨{i}⟩" for piece, i in zip(question.tokens.pieces, question.tokens.ids, strict=True))
    return Scores(
        title="Attention",
        values=np.concatenate(list(found.values())),
        axes=("head", "query", "key"),
        labels={"head": names, "query": pieces, "key": pieces},
        unit="attention",
        sign="larger means that the query looks more at the key",
        tokens=question.tokens,
        target=question.readout.description,
    )
