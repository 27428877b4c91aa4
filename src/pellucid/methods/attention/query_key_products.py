"""The neuron view: which components of query and key make a head look where it looks."""

from __future__ import annotations

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.head_patterns import chosen_layers, one_of
from pellucid.engine.query_key_space import queries_and_keys
from pellucid.engine.question import ask
from pellucid.models.subject import Subject


@method(
    rows=("ATT-1",),
    paper="arXiv:1906.05714",
    takes="prompt",
    produces="scores",
    axes=("key", "dimension"),
    needs=("attention",),
    cost="3*F",
)
def query_key_products(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, layer: int = -1, head: int = 0, query: int = -1
) -> Scores:
    """Split the attention score of one query with each key into the products of their components.

    P[j, d] = q_d k_jd of one head, after norms and rotary positions; positive components draw the query's attention to
    the key. Over d they sum to q . k_j exactly; the evidence says how close that, scaled, is to the score that the
    model computed, which may add a position bias, a cap or a mask (Vig 2019, arXiv:1906.05714).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is shown.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        layer: the layer; negative ones from the last.
        head: the head.
        query: the position that looks; negative ones from the last.

    Returns:
        Scores [key, dimension], the components of the head's query and key.

    Raises:
        InputError: a layer, head or position that is not there.
        SiteError: a model that computes attention outside transformers' attention interface.
    """
    question = ask(subject, prompt, target=target, unit="token+special")
    number = chosen_layers(question.subject, layer)[0]
    place = one_of(query, len(question.tokens), "position")
    queries, keys, scores = queries_and_keys(question.subject, question.tokens, number)
    head = one_of(head, queries.shape[1], "head")
    products = queries[place, head] * keys[:, head]
    pieces = tuple(piece or f"⟨{i}⟩" for piece, i in zip(question.tokens.pieces, question.tokens.ids, strict=True))
    result = Scores(
        title=f"Query times key, head {number}.{head}, from token {place}",
        values=products,
        axes=("key", "dimension"),
        labels={"key": pieces},
        unit="part of q . k",
        sign="positive draws attention to the key, negative away from it",
        tokens=question.tokens,
        target=question.readout.description,
    )
    return result.with_evidence(_close(products.sum(1), scores[head, place]))


def _close(products: np.ndarray, scores: np.ndarray) -> Evidence:
    """Compare q . k with the model's scores, on the keys that are not masked, after one common factor."""
    seen = np.abs(scores) < 1e6
    plain, real = products[seen], scores[seen]
    size = float(plain @ plain)
    factor = float(plain @ real) / size if size > 0 else 0.0
    rest = float(np.abs(real - factor * plain).max())
    return Evidence(
        "score",
        f"The model's attention scores are {factor:.3g} times q . k within {rest:.2g}.",
        {"factor": factor, "residual": rest},
        ok=bool(rest <= 1e-3 * max(1.0, float(np.abs(real).max()))),
    )
