"""The Jacobian lens against finite differences, and where the slope is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError
from pellucid.methods.reading.jacobian_lens import jacobian_lens
from pellucid.methods.reading.logit_lens import logit_lens
from tests import plain

PROMPTS = [plain.IDS, [3, 9, 81, 2, 40]]


def by_hand(ids: list[int], moved: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What the blocks 0 and 1 of GPT-2 give at the last position, with something added behind block 0."""
    model, seen = plain.tiny("gpt2"), []

    def add(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, -1] += 0 if moved is None else moved
        seen.append(out[0, -1])
        return out

    model.transformer.h[0].register_forward_hook(add)
    model.transformer.h[1].register_forward_hook(lambda _, __, out: seen.append(out[0, -1]))
    plain.logits(model, ids)
    return seen[0], seen[1]


def test_equals_finite_differences() -> None:
    slopes, rests = [], []
    for ids in PROMPTS:
        at, end = by_hand(ids, None)
        step = 1e-5 * torch.eye(32, dtype=torch.float64)
        slope = torch.stack([(by_hand(ids, d)[1] - by_hand(ids, -d)[1]) / 2e-5 for d in step])
        slopes.append(slope)
        rests.append(end - at @ slope)
    found = jacobian_lens(pellucid.load(plain.tiny("gpt2")), PROMPTS, test_share=0.0)
    np.testing.assert_allclose(found.tensors["matrices"][0] + np.eye(32), torch.stack(slopes).mean(0), atol=1e-7)
    np.testing.assert_allclose(found.tensors["biases"][0], torch.stack(rests).mean(0), atol=1e-7)
    np.testing.assert_allclose(found.tensors["matrices"][1], 0, atol=1e-12)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "bloom"])
def test_of_a_single_prompt_it_is_the_model_there(name: str) -> None:
    """The first-order expansion holds at the point that it was taken at."""
    subject = pellucid.load(plain.tiny(name))
    lens = jacobian_lens(subject, PROMPTS[:1], site="resid_pre")
    found = logit_lens(subject, plain.IDS, target=1, positions=-1, lens=lens).scores[:, 0]
    expected = float(plain.logits(subject.model, plain.IDS).log_softmax(-1)[1])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert lens.evidence[0].values["lens"] == 1.0
    assert lens.provenance.backwards == 32


def test_blocks_that_write_nothing_have_slope_one() -> None:
    subject = pellucid.load(plain.tiny("llama"))
    silent = subject.with_(*(pellucid.Edit(f"blocks.1.{part}.out", "zero") for part in ("attn", "mlp")))
    found = jacobian_lens(silent, PROMPTS, test_share=0.0)
    np.testing.assert_allclose(found.tensors["matrices"], 0, atol=1e-12)
    assert np.abs(jacobian_lens(subject, PROMPTS, test_share=0.0).tensors["matrices"][0]).max() > 1e-2


def test_only_decoders() -> None:
    with pytest.raises(CapabilityError, match="load a decoder"):
        jacobian_lens(pellucid.load(plain.tiny("bert-masked-lm")), PROMPTS)
