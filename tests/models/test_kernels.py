"""The fast product against the plain one, where it is allowed and where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import linear
from transformers.activations import FastGELUActivation, NewGELUActivation

import pellucid
from pellucid import Target
from pellucid.engine import forward_mode, store
from pellucid.engine.backward import together
from pellucid.engine.question import ask
from pellucid.models import kernels
from tests.engine.short_memory import short_once
from tests.state import changed, model_state
from tests.tiny import TINY

pytestmark = pytest.mark.skipif(not kernels._available(), reason="torch lacks the packed product here")
LONG = [int(i) for i in np.random.default_rng(0).integers(5, 99, size=80)]


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take the packed product wherever it is allowed, as on a machine where it pays; the list counts its calls."""
    calls: list[int] = []
    own = kernels._product

    def counted(value: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        calls.append(value.shape[-1])
        return own(value, packed, bias)

    monkeypatch.setattr(kernels, "LEAST_WEIGHTS", 0)
    monkeypatch.setattr(kernels, "LEAST_TOKENS", 0)
    monkeypatch.setattr(kernels, "rows_to_pay", lambda *shape: 0.0)
    monkeypatch.setattr(kernels, "_product", counted)
    return calls


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert-classifier", "t5"])
@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_explanations_are_the_same(name: str, method: str, forced: list[int]) -> None:
    subject = pellucid.load(TINY[name]())
    before = model_state(subject.model)
    prompt, options = LONG[:60], {"steps": 4} if method == "integrated_gradients" else {}
    with store.unused(), kernels.plain():
        plain = pellucid.run(method, subject, prompt, target=1, **options)
    assert forced == []
    with store.unused():
        fast = pellucid.run(method, subject, prompt, target=1, **options)
    assert forced, "the packed product was never taken"
    np.testing.assert_allclose(fast.scores, plain.scores, atol=2e-5)
    assert changed(before, model_state(subject.model)) == []


def test_blocks_computed_again_take_the_same_kernels(forced: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a block computes on the way back must be what it computed before, outside of the run that was made then."""
    monkeypatch.setattr(kernels, "LEAST_ROWS", 1)
    question = ask(pellucid.load(TINY["llama"]()), LONG[:60], target=1)
    points = question.embeddings()[None]
    values, plain = question.gradient(points)
    tries = short_once(monkeypatch)
    again, recomputed = question.gradient(points)
    assert len(tries) == 2
    assert forced
    torch.testing.assert_close(again, values)
    torch.testing.assert_close(recomputed, plain, atol=1e-5, rtol=1e-4)


def test_a_kernel_that_cannot_be_made_is_replaced_by_the_plain_product(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> torch.Tensor:
        raise RuntimeError("could not create a primitive")

    module = torch.nn.Linear(24, 40).requires_grad_(False)
    value = torch.randn(70, 24, requires_grad=True)
    layer = kernels._Layer(module, module.weight)
    monkeypatch.setattr(kernels, "_product", refused)
    with kernels.first_order():
        found = layer(value)
        (gradient,) = torch.autograd.grad(found.sum(), value)
    np.testing.assert_allclose(found.detach(), module(value).detach(), atol=1e-6)
    np.testing.assert_allclose(gradient, module.weight.sum(0).expand(70, 24), atol=1e-5)


def test_the_backward_is_the_product_with_the_transposed_weight(forced: list[int]) -> None:
    module = torch.nn.Linear(24, 40).requires_grad_(False)
    value = torch.randn(70, 24, requires_grad=True)
    layer = kernels._Layer(module, module.weight)
    with kernels.first_order():
        layer(value).square().sum().backward()
    expected = 2 * linear(value, module.weight, module.bias) @ module.weight
    assert value.grad is not None
    torch.testing.assert_close(value.grad, expected.detach(), atol=1e-4, rtol=1e-4)
    assert forced == [24, 40]


@pytest.mark.parametrize("legacy", [False, True])
def test_gradients_that_travel_together_are_multiplied_together(legacy: bool, forced: list[int]) -> None:
    module, given = torch.nn.Linear(24, 40).requires_grad_(False), torch.randn(1, 30, 24, requires_grad=True)
    directions = torch.randn(5, 1, 30, 40)
    expected = torch.stack([torch.autograd.grad(module(given), given, one)[0] for one in directions])
    layer = kernels._Layer(module, module.weight)
    value = kernels._Product.apply(given, layer, module.bias)
    forced.clear()
    if legacy:  # the tensor cannot be opened: torch goes one by one, rightly
        (found,) = torch.autograd.grad(value, given, directions, is_grads_batched=True)
    else:
        (found,) = together([value], [given], [directions])
        assert len(forced) == 1
    torch.testing.assert_close(found, expected)


def test_what_is_zero_behind_a_target_is_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    module, given = torch.nn.Linear(24, 40).requires_grad_(False), torch.randn(4, 50, 24, requires_grad=True)
    gradient = torch.randn(4, 50, 40)
    gradient[:2, 40:], gradient[2, :45], gradient[3, -1] = 0, 0, float("nan")
    rows: list[int] = []
    own = kernels._product

    def counted(value: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        rows.append(value.numel() // value.shape[-1])
        return own(value, packed, bias)

    monkeypatch.setattr(kernels, "_product", counted)
    (expected,) = torch.autograd.grad(module(given), given, gradient)
    value = kernels._Product.apply(given, kernels._Layer(module, module.weight), module.bias)
    rows.clear()
    (found,) = torch.autograd.grad(value, given, gradient)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert rows == [2 * 40 + 5 + 50]


def test_what_could_be_wrong_takes_the_plain_way(forced: list[int]) -> None:
    module = torch.nn.Linear(24, 40).requires_grad_(False)
    layer = kernels._Layer(module, module.weight)
    layer(torch.randn(8, 24))  # few rows
    layer(torch.randn(70, 24, requires_grad=True))  # a second derivative may be asked for
    forward_mode._ready()
    with torch.autograd.forward_ad.dual_level():
        layer(torch.autograd.forward_ad.make_dual(torch.randn(70, 24), torch.randn(70, 24)))
    module.requires_grad_(True)
    with kernels.first_order():
        layer(torch.randn(70, 24))  # the weight learns
    assert forced == []
    with torch.no_grad():
        layer(torch.randn(70, 24))
    assert forced == [24]


def test_an_activation_written_as_a_chain_is_one_kernel(forced: list[int]) -> None:
    subject = pellucid.load(TINY["gpt2"]())
    value = torch.linspace(-6, 6, 40, dtype=torch.float64, requires_grad=True)
    with kernels.session(subject, 10**6):
        held = kernels._layers.get()
        assert held is not None
        chains = {module: work for module, work in held[1].items() if isinstance(module, NewGELUActivation)}
    for kind in (NewGELUActivation, FastGELUActivation):
        [work] = kernels._whole(kind()).values()
        torch.testing.assert_close(work(value), kind()(value), atol=1e-9, rtol=1e-9)
        assert torch.autograd.gradcheck(work, value, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(work, value)
    assert len(chains) == subject.layers
    assert not kernels._whole(pellucid.load(TINY["llama"]()).model)


def test_a_wide_product_is_packed_when_enough_rows_have_come(forced: list[int]) -> None:
    module = torch.nn.Linear(24, 40).requires_grad_(False)
    layer, value = kernels._Layer(module, module.weight, wait=100.0), torch.randn(70, 24)
    with torch.no_grad():
        found = [layer(value) for _ in range(3)]
    assert forced == [24, 24], "the first 70 rows are fewer than the 100 that packing is worth"
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=1e-5)


def test_packing_is_measured_against_what_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.02, 0.01, 0.03, 0.02, 0.019])
    monkeypatch.undo()  # the fixture's stand-in
    monkeypatch.setattr(kernels, "_seconds", lambda work: next(seconds))
    assert kernels.rows_to_pay.__wrapped__(48, 24) == pytest.approx(3 * kernels.ROWS_MEASURED)
    assert kernels.rows_to_pay.__wrapped__(48, 24) == float("inf"), "too little is gained"


def test_a_changed_weight_is_packed_anew() -> None:
    subject = pellucid.load(TINY["gpt2"]())
    target = Target.continuation([3, 4], each=True)
    first = pellucid.run("occlusion", subject, LONG[:40], target=target).scores
    subject.model.transformer.h[0].mlp.c_fc.weight.data.mul_(1.5)  # leaves no trace in version counters
    with store.unused():
        found = pellucid.run("occlusion", subject, LONG[:40], target=target).scores
        with kernels.plain():
            expected = pellucid.run("occlusion", subject, LONG[:40], target=target).scores
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found - first).max() > 1e-4


def test_float64_is_left_alone(forced: list[int]) -> None:
    subject = pellucid.load(TINY["gpt2"]().to(torch.float64))
    pellucid.run("occlusion", subject, LONG[:40], target=1)
    assert forced == []
