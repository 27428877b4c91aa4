"""Forward mode against backward mode, batched against one by one, recomputed against kept, and stopping early."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

import pellucid
from pellucid import Edit, Target
from pellucid.core.errors import ResourceError
from pellucid.engine import backward, forward_mode, gradients, reading
from pellucid.engine.cone_rows import blocks_of
from pellucid.engine.question import ask
from pellucid.models.hooks import Hook, hooked
from tests.engine.short_memory import short_once
from tests.state import changed, model_state
from tests.tiny import TINY

IDS = [11, 42, 7, 23, 64, 5, 91, 33, 12, 77, 50, 28]
EACH = Target.continuation([3, 4, 5, 6, 9, 1, 2, 7, 8, 3, 4], each=True)
SHAPES = ["gpt2", "llama", "mixtral", "neox-parallel", "t5"]


def load(name: str) -> pellucid.Subject:
    return pellucid.load(TINY[name]().to(torch.float64))


@pytest.mark.parametrize("name", SHAPES)
def test_forward_mode_equals_backward_mode(name: str) -> None:
    """Eleven targets and two units: forward mode is cheaper, and gives what eleven gradients give."""
    subject = load(name)
    before = model_state(subject.model)
    question = ask(subject, IDS, target=EACH, unit=[(0, 4), (4, 11)])
    assert forward_mode.can_go_forward(subject)
    embeddings = question.embeddings()
    points = torch.stack([embeddings, 0.5 * embeddings])
    with subject.recorded() as record:
        fast = question.slopes(points, embeddings)
    assert record.backwards == 0
    _, plain = question.gradient(points)
    expected = np.stack([(plain * embeddings)[:, :, a:b].sum((2, 3)).numpy() for a, b in ((0, 4), (4, 11))], 1)
    np.testing.assert_allclose(fast, expected, atol=1e-6)
    assert changed(before, model_state(subject.model)) == []


def test_an_operation_without_forward_mode_goes_backward() -> None:
    """BLOOM's own GELU has a backward formula only."""
    question = ask(load("bloom"), IDS, target=EACH, unit=[(0, 4), (4, 11)])
    assert not forward_mode.can_go_forward(question.subject)
    embeddings = question.embeddings()
    _, plain = question.gradient(embeddings[None])
    expected = (plain * embeddings)[0, :, 0:4].sum((1, 2)).numpy()
    np.testing.assert_allclose(question.slopes(embeddings[None], embeddings)[0, 0], expected, atol=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_together_equal_gradients_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = load(name)
    question = ask(subject, IDS, target=EACH)
    points = question.embeddings()[None]
    _, together = question.gradient(points)
    monkeypatch.setattr(backward, "TARGETS_AT_ONCE", 1)
    _, single = question.gradient(points)
    torch.testing.assert_close(together, single, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("target", [EACH, Target([3, 4, 5], [6, 7, 8], "log_prob", "continuation", True)])
@pytest.mark.parametrize("name", ["gpt2", "gemma2", "t5"])
def test_one_pass_through_the_unembedding_serves_all_targets(
    name: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole way back for every target; a contrast runs two continuations."""
    question = ask(load(name), IDS, target=target)
    points = question.embeddings()[None]
    cuts: list[int] = []
    own = gradients.through
    monkeypatch.setattr(gradients, "through", lambda *a: (cuts.append(len(a[1])), own(*a))[1])
    values, fast = question.gradient(points)
    assert cuts == [len(question.readout.forced)]
    monkeypatch.setattr(gradients, "cut", lambda *_: nullcontext([]))
    plain_values, plain = question.gradient(points)
    torch.testing.assert_close(values, plain_values)
    torch.testing.assert_close(fast, plain, atol=1e-9, rtol=1e-6)


def test_a_backward_that_cannot_be_batched_goes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    question = ask(load("gpt2"), IDS, target=EACH)
    points = question.embeddings()[None]
    _, together = question.gradient(points)

    def refuses(*_: object) -> object:
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(torch.func, "vmap", refuses)
    _, single = question.gradient(points)
    torch.testing.assert_close(together, single, atol=1e-9, rtol=1e-6)


SUM = Target.continuation([3, 4, 5])


@pytest.mark.parametrize(("name", "target", "read"), [("gpt2", 1, 1), ("llama", SUM, 3), ("llama", EACH, 11)])
def test_the_last_block_works_where_it_is_read(
    name: str, target: int | Target, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = load(name)
    question = ask(subject, IDS, target=target)
    points = question.embeddings()[None].repeat(2, 1, 1)
    question.gradient(points)  # the model is probed once
    seen: list[int] = []
    last = blocks_of(subject)[-1]
    product = [module for module in last.modules() if isinstance(module, torch.nn.Linear | Conv1D)][-1]
    with hooked([Hook(product, "output", lambda out: (seen.append(out[..., 0].numel()), out)[1])]):
        values, fast = question.gradient(points)
        monkeypatch.setattr(reading, "_ends", lambda *_: None)
        plain_values, plain = question.gradient(points)
    assert seen == [2 * read, 2 * (len(IDS) + read - 1)]
    torch.testing.assert_close(values, plain_values)
    torch.testing.assert_close(fast, plain, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert-classifier"])
def test_blocks_are_computed_again_where_memory_is_short(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = load(name)
    before = model_state(subject.model)
    question = ask(subject, IDS, target=1)
    points = question.embeddings()[None]
    values, plain = question.gradient(points)
    tries = short_once(monkeypatch)
    again, recomputed = question.gradient(points)
    assert len(tries) == 2
    torch.testing.assert_close(again, values)
    torch.testing.assert_close(recomputed, plain, atol=1e-9, rtol=1e-6)
    assert changed(before, model_state(subject.model)) == []


@pytest.mark.parametrize("inside", ["site", "edit"])
def test_what_is_put_inside_a_block_is_not_computed_again(inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that is computed again is so without what was put there, so memory stays short and says so."""
    subject, site = load("llama"), "blocks.0.attn.z" if inside == "site" else "embed.token"
    if inside == "edit":
        subject = subject.with_(Edit("blocks.0.mlp.out", "scale", 2.0))
    question = ask(subject, IDS, target=1)
    points = gradients.site_values(subject, question.tokens, question.readout, site)[None]
    tries = short_once(monkeypatch)
    with pytest.raises(ResourceError, match="ran out"):
        gradients.value_and_gradient(subject, question.tokens, question.readout, points, site)
    assert tries == [1]


def test_recomputing_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors kept for the way back, counted by autograd's own hooks, are fewer."""
    subject = load("gpt2")
    question = ask(subject, list(range(5, 45)), target=1)
    points = [question.embeddings()]
    kept: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    def measure() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            gradients._differentiated(subject, question.tokens, question.readout, points, "embed.token")
        return sum(kept)

    whole = measure()
    with gradients.recomputed(subject):
        assert measure() < whole / 2


def test_weights_are_constants_and_keep_their_flags() -> None:
    subject = load("gpt2")
    some = next(iter(subject.model.parameters()))
    some.requires_grad_(False)
    flags = [p.requires_grad for p in subject.model.parameters()]
    question = ask(subject, IDS, target=1)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        question.gradient(question.embeddings()[None])
    inner = subject.model.config.n_embd * 4
    assert [p.requires_grad for p in subject.model.parameters()] == flags
    assert all(p.grad is None for p in subject.model.parameters())
    assert not any(t.shape[-1] == inner and t.ndim == 2 and t.shape[0] == 12 for t in kept), (
        "the input of the second feed-forward product is needed for the gradient of its weight only"
    )


def test_reading_a_site_stops_the_run_there(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = load("llama")
    question = ask(subject, IDS, target=1)
    calls: list[int] = []
    for layer, block in enumerate(subject.model.model.layers):
        own = block.forward
        monkeypatch.setattr(block, "forward", lambda *a, own=own, n=layer, **k: (calls.append(n), own(*a, **k))[1])
    question.embeddings()
    assert calls == []
    gradients.site_values(subject, question.tokens, question.readout, "blocks.0.resid_mid")
    assert calls == [0]
