"""Head redundancy against SciPy's Jensen-Shannon distance and a plain CKA, and on heads made equal."""

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon

import pellucid
from pellucid.methods.attention.head_redundancy import head_redundancy
from tests import plain

OTHER = [9, 80, 3, 3]


def patterns(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_attentions=True)
    return torch.cat([pattern[0] for pattern in output.attentions]).double().numpy()


def test_patterns_are_compared_by_scipys_distance() -> None:
    model = plain.tiny("llama")
    model.set_attn_implementation("eager")
    found = patterns(model, plain.IDS), patterns(model, OTHER)
    expected = np.zeros((8, 8))
    for a in range(8):
        for b in range(8):
            distances = [jensenshannon(p[a, i], p[b, i], base=2) for p in found for i in range(p.shape[1])]
            expected[a, b] = 1 - np.mean(np.nan_to_num(distances))
    model.set_attn_implementation("sdpa")
    result = head_redundancy(pellucid.load(model), plain.IDS, target=17, others=[OTHER])
    np.testing.assert_allclose(result.scores, expected, atol=1e-5)


def test_outputs_are_compared_by_cka() -> None:
    model = plain.tiny("gpt2")
    outputs: list[torch.Tensor] = []
    handles = [
        block.attn.c_proj.register_forward_pre_hook(lambda module, args: outputs.append(args[0][0].detach()))
        for block in model.transformer.h
    ]
    plain.logits(model, plain.IDS)
    for handle in handles:
        handle.remove()
    heads = [z.numpy()[:, 8 * h : 8 * h + 8] for z in outputs for h in range(4)]
    heads = [z - z.mean(0) for z in heads]
    expected = np.array(
        [[np.sum((x.T @ y) ** 2) / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y) for y in heads] for x in heads]
    )
    found = head_redundancy(pellucid.load(model), plain.IDS, target=17, by="output")
    np.testing.assert_allclose(found.scores, expected, atol=1e-9)
    np.testing.assert_allclose(np.diag(found.scores), 1)


def test_a_copied_head_is_wholly_redundant() -> None:
    model = plain.tiny("gpt2")
    with torch.no_grad():
        weight, bias = model.transformer.h[1].attn.c_attn.weight, model.transformer.h[1].attn.c_attn.bias
        for start in (0, 32, 64):
            weight[:, start + 16 : start + 24] = weight[:, start : start + 8]
            bias[start + 16 : start + 24] = bias[start : start + 8]
    subject = pellucid.load(model)
    for by in ("pattern", "output"):
        found = head_redundancy(subject, plain.IDS, target=17, by=by)
        assert abs(found.scores[4, 6] - 1) < 1e-6
        assert found.scores[4, 5] < 0.999
        assert "1.0 and 1.2" in found.evidence[0].summary
