"""Two jobs of editing, ours beside the published loops: `python -m bench.editing` counts, `--time` times.

Key covariance: five layers over 100,000 tokens in one pass, beside one pass for each layer that stops behind it (as the
code of ROME and MEMIT does). Value optimisation: 32 edits of seven short rows at a middle layer, beside one edit after
the other at full depth with the logits of all positions. Counting runs the same rows through a thin model of the same
depth and turns them into multiply-adds of the full one; products of keys with themselves are added by arithmetic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import pellucid
from bench.models import Shape, build
from bench.work import Work, counted
from pellucid.core.facts import Fact
from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_requests import Wordings, Written
from pellucid.engine.key_covariance import KEPT, STRIPS, key_covariance
from pellucid.engine.value_optimisation import Settings, optimise_values

LAYERS = (3, 4, 5, 6, 7)
EDITED = 5
EDITS, WORDINGS = 32, 6
SETTINGS = Settings(steps=20, enough=0.0)
TOKENS, LENGTH, BATCH = 100_000, 128, 32


def texts(shape: Shape, tokens: int) -> list[list[int]]:
    """Return random texts of 128 tokens."""
    drawn = np.random.default_rng(0).integers(10, shape.words - 1, size=(tokens // LENGTH, LENGTH))
    return [list(map(int, row)) for row in drawn]


def facts(shape: Shape, edits: int) -> list[Wordings]:
    """Return random facts: a bare row, rows behind prefixes of ten tokens, and an essence row."""
    generator = np.random.default_rng(1)

    def row(before: int, after: int, target: tuple[int, ...]) -> Written:
        ids = tuple(map(int, generator.integers(10, shape.words - 1, size=before + after)))
        return Written(ids, before - 1, len(ids), target)

    found = []
    for number in range(edits):
        target = (int(generator.integers(10, shape.words - 1)),)
        rows = (row(3, 4, target), *(row(13, 4, target) for _ in range(WORDINGS - 1)))
        found.append(Wordings(Fact("{} is", f"fact {number}", "so"), rows, row(3, 2, ())))
    return found


def one_layer_a_pass(model: Any, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Return the second moments as published: for each layer its own pass, stopped behind it."""

    class Stop(Exception):
        pass

    found = []
    for layer in LAYERS:
        module = model.transformer.h[layer].mlp.c_proj
        total = torch.zeros(module.weight.shape[0], module.weight.shape[0])
        count = 0
        for first in range(0, len(rows), BATCH):
            kept: list[torch.Tensor] = []

            def look(_: Any, args: Any, kept: list[torch.Tensor] = kept) -> None:
                kept.append(args[0].detach())
                raise Stop

            handle = module.register_forward_pre_hook(look)
            try:
                with torch.no_grad():
                    model(input_ids=torch.tensor(rows[first : first + BATCH]))
            except Stop:
                pass
            finally:
                handle.remove()
            keys = kept[0][:, 1:].flatten(0, 1)
            total += keys.T @ keys
            count += len(keys)
        found.append(total / count)
    return found


def one_edit_a_time(model: Any, written: Sequence[Wordings]) -> np.ndarray:
    """Return the losses [steps, edits] of the published loop: each edit alone, full depth, all logits."""
    model.requires_grad_(False)
    return np.stack([_one_edit(model, model.transformer.h[EDITED].mlp, one) for one in written], 1)


def _one_edit(model: Any, module: Any, one: Wordings) -> np.ndarray:
    rows = [*one.rows, one.essence]
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
    at = torch.tensor([row.position for row in rows])
    ends = torch.tensor([row.prompt - 1 for row in rows])
    here = (torch.arange(width)[None] == at[:, None])[..., None]
    vector = torch.zeros(model.config.n_embd, requires_grad=True)
    optimiser = torch.optim.Adam([vector], lr=SETTINGS.rate)
    start: list[torch.Tensor] = []
    before: list[torch.Tensor] = []
    losses = []

    def add(_: Any, args: Any, output: Any) -> Any:
        if not start:
            start.append(output[0, at[0]].detach())
        return output + here * vector

    handle = module.register_forward_hook(add)
    for step in range(SETTINGS.steps):
        logits = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        picked = logits[torch.arange(len(rows)), ends]
        likelihood = -picked[:-1, one.rows[0].target[0]].mean()
        before = before or [picked[-1].detach()]
        drift = (picked[-1].exp() * (picked[-1] - before[0])).sum()
        size = start[0].norm()
        loss = likelihood + SETTINGS.essence * drift + SETTINGS.decay * vector.norm() / size**2
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        if step < SETTINGS.steps - 1:
            optimiser.step()
            with torch.no_grad():
                vector.mul_((SETTINGS.clamp * size / vector.norm()).clamp(max=1.0))
    handle.remove()
    return np.array(losses)


def ours(model: Any) -> pellucid.Subject:
    """Return the model as a subject whose shared prefixes have been proved, which is done once per model."""
    subject = pellucid.load(model)
    with subject.uncounted():
        optimise_values(subject, [f"blocks.{EDITED}.mlp.out"], facts(Shape("gpt2", vocabulary=100), 1), SETTINGS)
    return subject


def covariance(subject: pellucid.Subject, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Return our second moments of all layers."""
    subject.state.cache.pop(KEPT, None)
    return [one.matrix.float() for one in key_covariance(subject, down_projections(subject, LAYERS), rows)]


def values(subject: pellucid.Subject, written: Sequence[Wordings]) -> np.ndarray:
    """Return our losses [steps, edits]."""
    return optimise_values(subject, [f"blocks.{EDITED}.mlp.out"], written, SETTINGS).losses


def work_of(shape: Shape, run: Callable[[], Any]) -> tuple[Work, Any]:
    """Return what a run sends through weights, and its answer."""
    with counted(shape) as work:
        answer = run()
    return work, answer


def count(shape: Shape) -> None:
    """Print rows, multiply-adds and the ratio that they predict, for both jobs, and how far the answers are apart."""
    thin = shape.thin()
    subject, plain = ours(build(thin)), build(thin)
    rows = texts(thin, TOKENS // 10)  # a tenth of the tokens: everything is in proportion
    mine, first = work_of(thin, lambda: covariance(subject, rows))
    theirs, second = work_of(thin, lambda: one_layer_a_pass(plain, rows))
    products = len(LAYERS) * len(rows) * (LENGTH - 1) * (4 * shape.width) ** 2
    half = (STRIPS + 1) / (2 * STRIPS)
    costs = (mine.multiply_adds(shape) + half * products, theirs.multiply_adds(shape) + products)
    gap = max(float((a - b).norm() / b.norm()) for a, b in zip(first, second, strict=True))
    _say("covariance of 5 layers", mine, theirs, costs, f"relative gap {gap:.1e}")
    written = facts(thin, EDITS)
    mine, fast = work_of(thin, lambda: values(subject, written))
    theirs, slow = work_of(thin, lambda: one_edit_a_time(plain, written))
    costs = (mine.multiply_adds(shape), theirs.multiply_adds(shape))
    _say("values of 32 edits", mine, theirs, costs, f"losses differ by {np.abs(fast - slow).max():.1e}")


def _say(name: str, mine: Work, theirs: Work, costs: tuple[float, float], agreement: str) -> None:
    print(f"{name}: predicted {costs[1] / costs[0]:.2f} x fewer multiply-adds; {agreement}")
    for who, work, cost in (("ours", mine, costs[0]), ("published", theirs, costs[1])):
        shown = {key: round(value) for key, value in vars(work).items()}
        print(f"  {who}: {cost / 1e12:.3f} T multiply-adds, {shown}")


def timed(shape: Shape) -> None:
    """Print the seconds of both jobs, once each after a warm-up on a few rows."""
    subject, plain = ours(build(shape)), build(shape)
    rows, written = texts(shape, TOKENS), facts(shape, EDITS)
    jobs: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        ("covariance of 5 layers", lambda: covariance(subject, rows), lambda: one_layer_a_pass(plain, rows)),
        ("values of 32 edits", lambda: values(subject, written), lambda: one_edit_a_time(plain, written)),
    ]
    covariance(subject, rows[:BATCH])
    one_layer_a_pass(plain, rows[:BATCH])
    for name, mine, theirs in jobs:
        seconds = []
        for run in (mine, theirs):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        print(f"{name}: {seconds[0]:.1f} s, published {seconds[1]:.1f} s, {seconds[1] / seconds[0]:.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", action="store_true", help="time at full size instead of counting")
    if parser.parse_args().time:
        timed(Shape("gpt2"))
    else:
        torch.manual_seed(0)
        count(Shape("gpt2"))
