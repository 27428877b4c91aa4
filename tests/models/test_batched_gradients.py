"""Attention whose gradients go back together, against torch's own, one gradient at a time."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pellucid.engine.backward import together
from pellucid.models import batched_gradients
from pellucid.models.batched_gradients import AttentionTogether


def values(rows: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, 3, 9, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.7, "is_causal": True, "dropout_p": 0.0}])
def test_equal_to_torchs_own_gradients(rows: int, options: dict[str, float]) -> None:
    leaves, directions = values(rows), torch.randn(4, rows, 3, 9, 8, dtype=torch.float64)
    plain = scaled_dot_product_attention(*leaves, **options)  # type: ignore[arg-type]
    expected = [torch.autograd.grad(plain, leaves, one, retain_graph=True) for one in directions]
    with AttentionTogether():
        found = scaled_dot_product_attention(*leaves, **options)  # type: ignore[arg-type]
    assert type(found.grad_fn).__name__ == "_AttentionBackward"
    torch.testing.assert_close(found, plain)
    for number, part in enumerate(together([found], leaves, [directions])):
        torch.testing.assert_close(part, torch.stack([one[number] for one in expected]))
    for own, one in zip(torch.autograd.grad(found, leaves, directions[0]), expected[0], strict=True):
        torch.testing.assert_close(own, one)


def test_one_call_sends_all_gradients_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    own = batched_gradients.opened
    monkeypatch.setattr(batched_gradients, "opened", lambda *given: (calls.append(1), own(*given))[1])
    leaves = values()
    with AttentionTogether():
        found = scaled_dot_product_attention(*leaves)
    together([found], leaves, [torch.randn(4, *found.shape, dtype=torch.float64)])
    assert calls == [1]


@pytest.mark.parametrize("why", ["mask", "groups", "no gradient"])
def test_other_attention_is_left_to_torch(why: str) -> None:
    query, key, value = values()
    mask = torch.ones(9, 9, dtype=torch.bool).tril() if why == "mask" else None
    if why == "groups":
        key, value = key[:, :1], value[:, :1]
    if why == "no gradient":
        query = query.detach()
    with AttentionTogether():
        found = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=why == "groups")
    assert type(found.grad_fn).__name__ != "_AttentionBackward"
