"""Feed-forward updates: what single neurons add to the prediction, and what their value vectors say."""

from __future__ import annotations

from typing import Literal

import torch

from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike
from pellucid.core.results import Evidence, Table
from pellucid.engine.direct_path import linear_readout
from pellucid.engine.head_weights import neuron_weights, unembedding
from pellucid.engine.question import ask, read_position
from pellucid.engine.stream_parts import smaller_parts, smaller_sites, stream_parts
from pellucid.engine.targets import name_of
from pellucid.models.subject import Subject


@method(
    rows=("TXB-4",),
    paper="arXiv:2203.14680",
    takes="prompt",
    produces="table",
    needs=("activations", "gradients", "weights"),
    cost="3*F+B",
)
def feed_forward_updates(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    count: Positive = 5, tokens: Positive = 5, rank: Literal["weight", "effect"] = "effect",
) -> Table:  # fmt: skip
    """List, layer by layer, the neurons that move the prediction most, with what each adds and the tokens it promotes.

    A feed-forward layer adds sum_i m_i v_i. The effect of neuron i is m_i v_i . (W_U[target] through the final norm at
    its divisor), the weight |m_i| |v_i|, and its tokens are those that m_i v_i raises most. Exact: the effects of all
    neurons, other parts and biases sum to the logit (evidence); what later blocks make of an update is not in it (Geva
    et al. 2022, arXiv:2203.14680). To control the model, edit `mlp.post` at the neurons listed.

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        prompt: text, chat or token ids.
        target: what is explained, a token; None means what the model predicts.
        contrast: the alternative to compare with.
        count: neurons per layer.
        tokens: tokens per neuron.
        rank: take the neurons of largest |effect|, or of largest weight, as the paper does.

    Returns:
        Table with the columns layer, neuron, activation, weight, effect, tokens.

    Raises:
        TargetError: a target that is no logit.
        SiteError: a model whose experts are computed jointly.
        CapabilityError: a model without one pre-norm stack or without a plain unembedding.
    """
    question = ask(subject, prompt, target=target, contrast=contrast)
    readout = linear_readout(question.readout, "feed_forward_updates")
    outputs, place = unembedding(subject), read_position(question)
    sites = [f"blocks.{layer}.mlp.post" for layer in range(subject.layers)]
    weights = [neuron_weights(subject, layer) for layer in range(subject.layers)]
    shared = stream_parts(subject, question.tokens, readout, smaller_sites(subject, "mlp"))
    rows, all_effects, apart = [], 0.0, {"embedding": shared.start.effect}
    for part in shared.parts:
        if part.kind != "mlp":
            apart[part.kind] = apart.get(part.kind, 0.0) + part.effect
            continue
        effects, bias = smaller_parts(subject, shared, part)
        apart["biases of the parts"] = apart.get("biases of the parts", 0.0) + bias
        all_effects += float(effects.sum())
        activation = shared.output.row(sites[part.layer], 0)[place].to(outputs)
        size = activation.abs() * weights[part.layer].norm(dim=1)
        order = (effects.abs() if rank == "effect" else size).argsort(descending=True, stable=True)[:count].tolist()
        updates = activation[order, None] * weights[part.layer][order]
        said = (updates @ outputs.T).topk(min(tokens, len(outputs)), dim=1).indices.tolist()
        for neuron, best in zip(order, said, strict=True):
            words = ", ".join(name_of(subject, token) for token in best)
            numbers = (float(activation[neuron]), float(size[neuron]), float(effects[neuron]))
            rows.append((part.layer, neuron, *numbers, words))
    shown = sum(row[4] for row in rows)
    return Table(
        title=f"Feed-forward updates towards {readout.description}",
        columns=("layer", "neuron", "activation", "weight", "effect", "tokens"),
        rows=tuple(rows),
    ).with_evidence(shared.evidence(all_effects, apart), _share(shown, all_effects, len(rows), weights))


def _share(shown: float, everything: float, count: int, weights: list[torch.Tensor]) -> Evidence:
    total = sum(len(layer) for layer in weights)
    return Evidence(
        "updates listed",
        f"The {count} updates listed add {shown:+.3g}, all {total} neurons together {everything:+.3g}.",
        {"listed": shown, "all": everything, "neurons": float(total)},
    )
