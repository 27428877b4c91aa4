"""Values optimised from a cached prefix are those of the plain loop: full depth, all logits, one edit at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError
from pellucid.engine.edit_requests import Wordings, wordings
from pellucid.engine.value_optimisation import Settings, optimise_values, optimise_values_plain
from tests.editing import FACTS, PREFIXES, editable, matrix_of, values_of
from tests.state import changed, model_state

SETTINGS = Settings(steps=8, rate=0.1, clamp=3.0)


def published_loop(
    subject: pellucid.Subject, module: Any, one: Wordings, settings: Settings, norm: torch.Tensor
) -> tuple[torch.Tensor, list[float]]:
    """Optimise one vector added to a module's output: every row at full depth, all logits, one edit alone."""
    vector = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([vector], lr=settings.rate)
    losses: list[float] = []
    before = None
    for step in range(settings.steps):
        likelihoods, now = [], torch.empty(0)
        for row in (*one.rows, one.essence):

            def add(_: Any, args: Any, output: Any, at: int = row.position) -> Any:
                value = output[0] if isinstance(output, tuple) else output
                rows = torch.arange(value.shape[-2]) == at
                new = value + rows[:, None] * vector
                return (new, *output[1:]) if isinstance(output, tuple) else new

            handle = module.register_forward_hook(add)
            logits = subject.model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            handle.remove()
            if row.target:
                picked = [logits[row.prompt - 1 + i, token] for i, token in enumerate(row.target)]
                likelihoods.append(-torch.stack(picked).mean())
            else:
                now = logits[len(row.ids) - 1]
        before = now.detach() if before is None else before
        drift = (now.exp() * (now - before)).sum()
        loss = torch.stack(likelihoods).mean() + settings.essence * drift + settings.decay * vector.norm() / norm**2
        losses.append(float(loss.detach()))
        if losses[-1] < settings.enough or step == settings.steps - 1:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            if vector.norm() > settings.clamp * norm:
                vector.mul_(settings.clamp * norm / vector.norm())
    subject.model.zero_grad()
    return vector.detach(), losses


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox-parallel"])
def test_the_published_loop_gives_the_same_losses_and_vectors(kind: str) -> None:
    subject = editable(kind)
    written = wordings(subject, FACTS[:2], PREFIXES[:1], "last")
    before = model_state(subject.model)
    found = optimise_values(subject, ["blocks.1.mlp.out"], written, SETTINGS)
    assert changed(before, model_state(subject.model)) == []
    for i, one in enumerate(written):
        start = values_of(subject, 1, one.rows[0].ids)[one.rows[0].position]
        torch.testing.assert_close(found.start["blocks.1.mlp.out"][i], start)
        vector, losses = published_loop(subject, matrix_of(subject, 1), one, SETTINGS, start.norm())
        mine = found.losses[:, i]
        np.testing.assert_allclose(mine[~np.isnan(mine)], losses, atol=1e-6)
        assert losses[-1] < losses[0]
        torch.testing.assert_close(found.vectors["blocks.1.mlp.out"][i], vector, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "sites"),
    [
        ("llama", ["blocks.1.resid_post"]),
        ("llama", ["blocks.2.mlp.out"]),
        ("llama", ["blocks.1.attn.out", "blocks.1.mlp.out"]),
        ("gemma2", ["blocks.1.mlp.out_raw"]),
        ("gpt2", ["blocks.2.attn.out", "blocks.2.mlp.out"]),
    ],
)
def test_cached_is_plain(kind: str, sites: list[str]) -> None:
    subject = editable(kind)
    for token in ("subject", "last"):
        written = wordings(subject, FACTS, PREFIXES, token)
        settings = Settings(steps=4, rate=0.1)
        cached = optimise_values(subject, sites, written, settings)
        plain = optimise_values_plain(subject, sites, written, settings)
        np.testing.assert_allclose(cached.losses, plain.losses, atol=1e-6)
        for site in sites:
            torch.testing.assert_close(cached.vectors[site], plain.vectors[site], rtol=1e-4, atol=1e-6)
            # An edit of the last block at the subject moves no later token; everywhere else it does.
            assert bool((cached.vectors[site].norm(dim=1) > 0).all()) == (token == "last" or "blocks.2" not in site)


def test_batched_is_single_and_an_edit_ends_alone() -> None:
    subject = editable("llama")
    written = wordings(subject, FACTS)
    settings = Settings(steps=6, rate=0.3, enough=6.6, clamp=20.0)
    site = "blocks.0.mlp.out"
    together = optimise_values(subject, [site], written, settings)
    ended = np.isnan(together.losses).sum(0)
    assert ended.max() > ended.min()
    for i, one in enumerate(written):
        alone = optimise_values(subject, [site], [one], settings)
        np.testing.assert_allclose(together.losses[:, [i]], alone.losses, atol=1e-6)
        torch.testing.assert_close(together.vectors[site][i], alone.vectors[site][0], rtol=1e-4, atol=1e-6)


def test_float32_stays_within_a_thousandth() -> None:
    losses = []
    for dtype in (torch.float32, torch.float64):
        subject = editable("llama", dtype)
        found = optimise_values(subject, ["blocks.1.mlp.out"], wordings(subject, FACTS, PREFIXES), SETTINGS)
        losses.append(found.losses)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)


def test_the_clamp_holds() -> None:
    subject = editable("llama")
    settings = Settings(steps=6, rate=1.0, clamp=0.25, enough=0.0)
    found = optimise_values(subject, ["blocks.1.mlp.out"], wordings(subject, FACTS), settings)
    lengths = found.vectors["blocks.1.mlp.out"].norm(dim=1) / found.start["blocks.1.mlp.out"].norm(dim=1)
    assert float(lengths.max()) == pytest.approx(0.25)


def test_a_loss_that_is_no_number_is_refused() -> None:
    subject = editable("llama")
    broken = subject.with_(pellucid.Edit("blocks.2.mlp.out", "scale", float("nan")))
    before = model_state(subject.model)
    with pytest.raises(EditError, match="NaN or infinite at step 0"):
        optimise_values(broken, ["blocks.1.mlp.out"], wordings(subject, FACTS), SETTINGS)
    assert changed(before, model_state(subject.model)) == []
