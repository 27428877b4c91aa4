"""DeepLIFT: completeness without quadrature, linear models, a chain worked by hand, and Captum."""

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Target
from pellucid.core.errors import CapabilityError
from pellucid.engine.differences import Differences
from pellucid.engine.interception import watched
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from pellucid.methods.relevance.deeplift import deeplift
from pellucid.models.load import subject_of
from tests import plain
from tests.tiny import TINY


def multipliers(module: torch.nn.Module, x: torch.Tensor, start: torch.Tensor, target: int) -> torch.Tensor:
    differences = Differences()
    with watched(differences, module):
        module(start.clone().requires_grad_())
    differences.place = 0
    leaf = x.clone().requires_grad_()
    with watched(differences, module):
        value = module(leaf)[..., target].sum()
    return torch.autograd.grad(value, leaf)[0]


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["logit", "log_prob", "prob"])
@pytest.mark.parametrize("name", ["gpt2", "bloom", "bert-classifier", "t5-gated", "gemma2"])
def test_adds_up_to_the_change_of_every_measure(name: str, measure: str) -> None:
    subject = pellucid.load(TINY[name]().double())
    found = deeplift(subject, plain.IDS, target=Target(1, measure=measure), baseline=3)
    ends = integrated_gradients(subject, plain.IDS, target=Target(1, measure=measure), baseline=3, steps=1)
    change = ends.evidence[0].values["difference"]
    # T5 and Gemma normalise in float32, BLOOM takes its softmax in it.
    tolerance = 1e-5 if name in ("t5-gated", "gemma2", "bloom") else 1e-9
    assert found.scores.sum() == pytest.approx(change, rel=tolerance, abs=tolerance)
    assert found.evidence[0].values["residual"] == pytest.approx(abs(found.scores.sum() - change), abs=tolerance)


def test_equals_integrated_gradients_where_the_model_is_linear() -> None:
    """A GPT-2 whose blocks add nothing and whose final norm is the identity has logits linear in the embeddings."""
    model = plain.tiny()
    for block in model.transformer.h:
        for part in (block.attn.c_proj, block.mlp.c_proj):
            part.weight.data.zero_()
            part.bias.data.zero_()
    model.transformer.ln_f = torch.nn.Identity()
    subject = subject_of(model, None, name="linear", proved=False)
    ours, theirs = (m(subject, plain.IDS, target=plain.TARGET) for m in (deeplift, integrated_gradients))
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-12)
    assert abs(ours.scores[-1]) > 1e-4


def test_softmax_and_norm_by_hand() -> None:
    """Two numbers through a softmax: chords of exp and 1/x, and the symmetric split of their product."""
    x, start = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, -0.5], [0.2, 0.4]))
    e, e0 = x.exp(), start.exp()
    total, total0 = e.sum(), e0.sum()
    chord = (e - e0) / (x - start)
    inverse = (1 / total - 1 / total0) / (total - total0)
    mean_e, mean_inverse = (e + e0) / 2, (1 / total + 1 / total0) / 2
    expected = torch.stack([
        chord[0] * (mean_inverse + mean_e[0] * inverse), chord[1] * mean_e[0] * inverse,
    ])  # fmt: skip
    found = multipliers(torch.nn.Softmax(-1), x, start, 0)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-12)
    norm = torch.nn.LayerNorm(2).double()
    change = (norm(x) - norm(start))[1].detach()
    assert float(multipliers(norm, x, start, 1) @ (x - start)) == pytest.approx(float(change), abs=1e-12)


def test_an_input_equal_to_the_baseline_gets_nothing() -> None:
    found = deeplift(pellucid.load(plain.tiny("llama")), plain.IDS, target=plain.TARGET, baseline=plain.IDS[2])
    assert found.scores[2] == 0
    assert abs(found.scores[[0, 1, 3]]).min() > 0


def test_mixtures_of_experts_are_refused() -> None:
    with pytest.raises(CapabilityError, match="experts"):
        deeplift(pellucid.load(TINY["mixtral"]()), plain.IDS, target=1)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_agrees_with_captum_on_a_network() -> None:
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()
    x, start = torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    theirs = attr.DeepLift(network).attribute(x.clone().requires_grad_(), start, target=1)
    ours = multipliers(network, x, start, 1) * (x - start)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=1e-9)
