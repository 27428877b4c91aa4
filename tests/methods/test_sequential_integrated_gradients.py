"""Sequential integrated gradients: each score is one replacement's whole effect; and the paper's sum by hand."""

import numpy as np
import torch

import pellucid
from pellucid.methods.attribution.occlusion import occlusion
from pellucid.methods.attribution.sequential_integrated_gradients import sequential_integrated_gradients
from tests import plain


def test_each_score_is_the_effect_of_replacing_its_unit() -> None:
    """Along the path of unit i only e_i moves, so its integral is what replacing it changes, as occlusion measures."""
    subject = pellucid.load(plain.tiny())
    spans = [(0, 1), (1, 3), (4, 6)]
    found = sequential_integrated_gradients(
        subject, plain.IDS, target=plain.TARGET, baseline=3, steps=24, normalise="none", unit=spans
    )
    replaced = occlusion(subject, plain.IDS, target=plain.TARGET, replacement=3, unit=spans)
    np.testing.assert_allclose(found.scores, replaced.scores, atol=1e-6)


def test_equals_the_sum_of_the_paper() -> None:
    model = plain.tiny()
    end = plain.embeddings(model, plain.IDS)
    expected = []
    for i in range(len(plain.IDS)):
        total = torch.zeros(end.shape[1], dtype=torch.float64)
        for step in range(10):
            point = end.clone()
            point[i] = (step + 0.5) / 10 * end[i]
            point.requires_grad_()
            plain.from_embeddings(model, point)[plain.TARGET].backward()
            assert point.grad is not None
            total += point.grad[i] / 10
        expected.append(float((end[i] * total).sum().detach()))
    scaled = np.array(expected) / np.linalg.norm(expected)
    found = sequential_integrated_gradients(
        pellucid.load(model), plain.IDS, target=plain.TARGET, baseline="zero", steps=10, quadrature="riemann_middle"
    )
    np.testing.assert_allclose(found.scores, scaled, atol=1e-10)
