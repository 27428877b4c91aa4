"""Vocabulary flow graph: what heads, neurons and norms write at one position, in words, and how it adds up."""

from __future__ import annotations

import torch

from pellucid.core.errors import InputError, SiteError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike
from pellucid.core.results import Graph
from pellucid.engine.capture import capture
from pellucid.engine.head_weights import unembedding
from pellucid.engine.question import Question, ask, read_position
from pellucid.engine.transformed import attention_blocks
from pellucid.engine.vocabulary_picture import VocabularyPicture
from pellucid.models.subject import Subject


@method(
    rows=("TXB-7",),
    paper="arXiv:2305.13417",
    takes="prompt",
    produces="graph",
    needs=("attention", "weights", "logits"),
    cost="5*F",
)
def vocabulary_flow_graph(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, position: int | None = None,
    heads: Positive = 3, neurons: Positive = 4, sources: Positive = 2, tokens: Positive = 3,
) -> Graph:  # fmt: skip
    """Draw what is added to the residual stream at one position, every vector read as words of the vocabulary.

    An edge from a summand v to its sum y weighs v . y / |y|^2: what v is of y along y, negative where it works against
    it; the edges into a sum would add up to 1 if all were drawn. A head is a sum over tokens, attention a sum of heads,
    a feed-forward layer of neurons (activation x output weights), the stream of these and itself; each layer shows its
    largest. A node's words are the highest entries of W_U v (norm gains within), its `rank` that of the target there.
    Exact for what it states: the evidence has the residual of the sums (Katz & Belinkov 2023, arXiv:2305.13417, who
    weigh edges by activations and lengths).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        prompt: text, chat or token ids.
        target: the token whose rank nodes give; None means what the model predicts.
        position: where the stream is followed; None means the position that the output is read from.
        heads: heads per layer.
        neurons: neurons per layer; none are drawn where experts are computed jointly.
        sources: other tokens per head.
        tokens: words per node.

    Returns:
        A graph from the embedding to the last stream, bottom up.

    Raises:
        InputError: a position that the prompt does not have.
        CapabilityError: a model without one pre-norm stack or without a plain unembedding.
    """
    question = ask(subject, prompt, target=target)
    at = read_position(question) if position is None else position
    if not -len(question.tokens) <= at < len(question.tokens):
        raise InputError(f"There is no position {at}; the prompt has positions 0 to {len(question.tokens) - 1}.")
    picture = VocabularyPicture(question, at % len(question.tokens), unembedding(subject), tokens)
    blocks = attention_blocks(question.subject, question.tokens)
    active = _activations(question, len(blocks))
    picture.node("blocks.0.resid_pre", "stream 0", blocks[0].before[picture.at])
    for layer, block in enumerate(blocks):
        picture.attend(layer, block, heads, sources)
        picture.feed(layer, block, active.get(layer), neurons)
    return picture.graph()


def _activations(question: Question, layers: int) -> dict[int, torch.Tensor]:
    """Return the activations of every layer's neurons, layer -> [position, neuron]; nothing where they are not seen."""
    sites = [f"blocks.{layer}.mlp.post" for layer in range(layers)]
    try:
        found = capture(question.subject, question.tokens, sites)
    except SiteError:
        return {}
    return {layer: found[site] for layer, site in enumerate(sites)}
