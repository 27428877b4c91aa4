"""The vocabulary flow graph: sums of shares, neurons and heads by hand, and words of planted parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.results import Graph
from pellucid.methods.reading.vocabulary_flow_graph import vocabulary_flow_graph
from tests import plain


def into(graph: Graph, name: str) -> dict[str, float]:
    """Return the weights of the edges into a node by their source."""
    ids = [node["id"] for node in graph.nodes]
    pairs = zip(graph.sources, graph.targets, graph.weights, strict=True)
    return {ids[a]: float(weight) for a, b, weight in pairs if ids[b] == name}


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox-parallel", "gemma2", "mixtral"])
def test_shares_of_all_parts_add_up(name: str) -> None:
    subject = pellucid.load(plain.tiny(name))
    found = vocabulary_flow_graph(subject, plain.IDS, target=plain.TARGET, heads=99, neurons=999, sources=99)
    assert found.evidence[0].values["residual"] < 1e-6
    for layer in (1, subject.layers):
        assert sum(into(found, f"blocks.{layer}.resid_pre").values()) == pytest.approx(1, abs=1e-6)
    if name == "llama":  # no biases: everything is drawn
        for node in found.nodes:
            assert sum(into(found, node["id"]).values()) in (0, pytest.approx(1, abs=1e-6)), node


def test_neurons_and_words_by_hand() -> None:
    model: Any = plain.tiny("gpt2")
    found = vocabulary_flow_graph(pellucid.load(model), plain.IDS, target=plain.TARGET, neurons=2, tokens=4)
    block, seen = model.transformer.h[1], dict[str, torch.Tensor]()
    handles = [
        block.mlp.c_proj.register_forward_pre_hook(lambda _, args: seen.update(active=args[0][0, -1])),
        block.mlp.register_forward_hook(lambda _, args, out: seen.update(out=out[0, -1])),
    ]
    plain.logits(model, plain.IDS)
    for handle in handles:
        handle.remove()
    written = seen["active"][:, None] * block.mlp.c_proj.weight.detach()
    best = written.norm(dim=1).topk(2).indices.tolist()
    shares = into(found, "blocks.1.mlp.out")
    assert set(shares) == {f"blocks.1.mlp.{neuron}" for neuron in best}
    for neuron in best:
        expected = float(written[neuron] @ seen["out"] / (seen["out"] @ seen["out"]))
        assert shares[f"blocks.1.mlp.{neuron}"] == pytest.approx(expected, abs=1e-9)
    weight = (model.lm_head.weight * model.transformer.ln_f.weight).detach()
    logits = (weight - weight.mean(1, keepdim=True)) @ written[best[0]]
    node = next(node for node in found.nodes if node["id"] == f"blocks.1.mlp.{best[0]}")
    assert node["words"] == " ".join(f"⟨{int(i)}⟩" for i in logits.topk(4).indices)
    assert node["rank"] == int((logits > logits[plain.TARGET]).sum())


def test_the_planted_induction_head_writes_the_answer_that_it_reads() -> None:
    subject = pellucid.load("zoo:truth/induction")
    found = vocabulary_flow_graph(subject, "red blue green red", heads=1, sources=1, tokens=1)
    head = next(node for node in found.nodes if node["id"] == "blocks.1.attn.1")
    assert (head["words"], head["rank"]) == ("blue", 0)
    assert into(found, "blocks.1.attn.1") == {"blocks.1.resid_pre[2]": pytest.approx(1, abs=1e-6)}
    assert np.isfinite(found.weights).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="no position 9"):
        vocabulary_flow_graph(pellucid.load(plain.tiny("gpt2")), plain.IDS, position=9)
    with pytest.raises(CapabilityError):
        vocabulary_flow_graph(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, target=1)
