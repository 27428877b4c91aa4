"""Attention flow: a graph worked by hand, networkx on the same capacities, and the cut that bounds every flow."""

import networkx
import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit
from pellucid.methods.attention.attention_flow import attention_flow
from tests import plain


def with_patterns(patterns: list[list[list[float]]]) -> pellucid.Subject:
    """Put the same pattern into every head of each layer of a model with two layers."""
    subject = pellucid.load(plain.tiny())
    values = [torch.tensor(pattern, dtype=torch.float64) for pattern in patterns]
    return subject.with_(*(Edit(f"blocks.{i}.attn.pattern", "set", value) for i, value in enumerate(values)))


def test_a_graph_worked_by_hand() -> None:
    """Two layers, three tokens, read at the last.

    With the residual half, layer 1 gives 2 -> (0: 0.1, 1: 0.3, 2: 0.6) and layer 0 gives 0 -> (0: 1),
    1 -> (0: 0.4, 1: 0.6) and 2 -> (0: 0.05, 1: 0.2, 2: 0.75). Towards 0: 0.1 by 0; 0.3 by 1, which could
    pass 0.4; 0.05 by 2, where 0.6 comes: 0.45. Towards 1: 0.3 by 1, which could pass 0.6; 0.2 by 2: 0.5. Towards 2: 0.6
    by 2, which could pass 0.75: 0.6.
    """
    subject = with_patterns([
        [[1.0, 0.0, 0.0], [0.8, 0.2, 0.0], [0.1, 0.4, 0.5]],
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.6, 0.2]],
    ])  # fmt: skip
    found = attention_flow(subject, [11, 42, 7], target=plain.TARGET)
    np.testing.assert_allclose(found.scores, [0.45, 0.5, 0.6], atol=1e-8)
    # A unit of two tokens is one sink: what reaches 0 or 1 may use both ways, but 2 lets only 0.25 pass to them.
    joined = attention_flow(subject, [11, 42, 7], target=plain.TARGET, unit=[(0, 2), (2, 3)])
    np.testing.assert_allclose(joined.scores, [0.1 + 0.3 + 0.25, 0.6], atol=1e-8)


@pytest.mark.parametrize("name", ["llama", "bert-classifier"])
def test_equals_networkx(name: str) -> None:
    model = plain.tiny(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(input_ids=torch.tensor([plain.IDS]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    graph = networkx.DiGraph()
    for level, pattern in enumerate(patterns):
        mean = 0.5 * pattern[0].mean(0) + 0.5 * torch.eye(6)
        for query in range(6):
            for key in range(6):
                graph.add_edge((level + 1, query), (level, key), capacity=float(mean[query, key]))
    read = 5 if name == "llama" else 0
    expected = [networkx.maximum_flow_value(graph, (len(patterns), read), (0, key)) for key in range(6)]
    found = attention_flow(pellucid.load(model), plain.IDS, target=1)
    np.testing.assert_allclose(found.scores, expected, atol=1e-7)
    assert found.scores.sum() >= 1 - 1e-7


def test_attention_to_oneself_alone_lets_nothing_else_through() -> None:
    subject = with_patterns([np.eye(4).tolist()] * 2)
    found = attention_flow(subject, [11, 42, 7, 23], target=plain.TARGET)
    np.testing.assert_allclose(found.scores, [0, 0, 0, 1], atol=1e-9)
