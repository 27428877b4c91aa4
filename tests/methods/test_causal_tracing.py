"""Causal tracing against the paper's loop, written with hooks by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.methods.patching.causal_tracing import causal_tracing
from tests import plain

NOISY = (1, 2)


def traced(model: Any, window: int, part: str, severed: bool, seed: int) -> tuple[np.ndarray, float]:
    """Return IE [layer, position] of one draw of noise and the noisy probability, one forward per cell."""
    table = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(len(NOISY), table.weight.shape[1], generator=generator).to(table.weight)
    drawn = 3.0 * table.weight.detach().float().std() * drawn
    blocks = model.model.layers

    def run(noise: bool, restore: dict[tuple[int, str], torch.Tensor], position: int) -> tuple[float, dict[Any, Any]]:
        seen: dict[Any, Any] = {}
        handles = []

        def embed(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            if noise:
                output[0, list(NOISY)] += drawn
            return output

        def at(key: tuple[int, str]) -> Any:
            def hook(module: Any, args: Any, output: Any) -> Any:
                value = (output[0] if isinstance(output, tuple) else output).clone()
                if key in restore:
                    value[0, position] = restore[key][0, position]
                seen[key] = value
                return (value, *output[1:]) if isinstance(output, tuple) else value

            return hook

        handles.append(table.register_forward_hook(embed))
        for i, block in enumerate(blocks):
            handles.append(block.register_forward_hook(at((i, "block"))))
            handles.append(block.mlp.register_forward_hook(at((i, "mlp"))))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([plain.IDS])).logits[0, -1]
        for handle in handles:
            handle.remove()
        return float(logits.softmax(-1)[plain.TARGET]), seen

    clean = run(False, {}, 0)[1]
    base, noisy = run(True, {}, 0)
    grid = np.zeros((len(blocks), len(plain.IDS)))
    for layer in range(len(blocks)):
        first = layer - window // 2
        for position in range(len(plain.IDS)):
            around = range(max(0, first), min(len(blocks), first + window))
            restore = {(i, part): clean[i, part] for i in around}
            if severed:
                restore |= {(i, "mlp"): noisy[i, "mlp"] for i in range(layer + 1, len(blocks))}
            grid[layer, position] = run(True, restore, position)[0] - base
    return grid, base


@pytest.mark.parametrize(
    ("site", "part", "window", "severed"),
    [("resid_post", "block", 1, False), ("mlp.out", "mlp", 2, False), ("resid_post", "block", 1, True)],
)
def test_equals_the_loop_of_the_paper(site: str, part: str, window: int, severed: bool) -> None:
    model = plain.tiny("llama")
    draws = [traced(model, window, part, severed, seed)[0] for seed in (0, 1, 2)]
    found = causal_tracing(
        pellucid.load(model), plain.IDS, corrupted=NOISY, target=plain.TARGET, site=site, window=window, samples=3,
        severed="mlp.out" if severed else "none",
    )  # fmt: skip
    np.testing.assert_allclose(found.scores, np.mean(draws, 0), atol=1e-7)
    assert found.std_error is not None
    np.testing.assert_allclose(found.std_error, np.std(draws, 0, ddof=1) / np.sqrt(3), atol=1e-7)


def test_restoring_every_noisy_place_before_the_first_block_restores_the_answer() -> None:
    """With one corrupted token, its clean embedding is everything the noise destroyed."""
    model = plain.tiny("llama")
    found = causal_tracing(
        pellucid.load(model), plain.IDS, corrupted=[2], target=plain.TARGET, site="resid_pre", samples=4
    )
    total = found.evidence[0].values
    np.testing.assert_allclose(found.scores[0, 2], total["difference"], atol=1e-6)
    np.testing.assert_allclose(found.scores[:, :2], 0, atol=1e-7)


def test_noise_is_placed_by_text() -> None:
    subject = pellucid.load("zoo:tiny-lm")
    found = causal_tracing(subject, "The capital of France is", corrupted="France", samples=2)
    assert found.evidence[0].values["clean"] > 0.5
    place = subject.encode("The capital of France is").pieces.index(" France")
    best = np.unravel_index(found.scores.argmax(), found.scores.shape)
    assert best[1] >= place
    with pytest.raises(InputError, match="not in the prompt"):
        causal_tracing(subject, "The capital of France is", corrupted="Spain")
