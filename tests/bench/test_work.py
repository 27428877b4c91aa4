"""The counters and the fewest rows: both against something written in another way."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench import fewest
from bench.floor import Floor, products_of
from bench.jobs import JOBS
from bench.models import Shape, build, draw
from bench.work import counted

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = Shape("gpt2", layers=3, width=48, heads=4, vocabulary=97)


class Products(TorchDispatchMode):
    """Adds up the multiply-adds of all matrix products that torch runs."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            first, second = args[-2:]
            self.total += first.shape[0] * first.shape[1] * second.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("frozen", [True, False])
def test_counted_work_is_what_torch_counts(kind: str, frozen: bool) -> None:
    shape = Shape(kind, layers=2, width=48, heads=4, vocabulary=97)
    model = build(shape, attention="sdpa").requires_grad_(not frozen)
    embeddings = model.get_input_embeddings()(torch.arange(20, 31)[None]).detach().requires_grad_()
    wanted = [embeddings] if frozen else [embeddings, *(p for p in model.parameters() if p.ndim == 2)]
    with counted(shape) as work, Products() as products:
        score = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, 5]
        torch.autograd.grad(score, wanted, allow_unused=True)
    assert work.token_layers == pytest.approx(2 * 11)
    assert work.backward_layers == pytest.approx(2 * 11)
    assert work.logit_rows == 11
    if frozen:
        assert work.multiply_adds(shape) == pytest.approx(products.total)
    assert work.weight_layers == pytest.approx(0 if frozen else 2 * 11)


def test_gradients_that_nobody_asked_for_are_not_counted() -> None:
    model = build(SHAPE).requires_grad_(True)
    embeddings = model.get_input_embeddings()(torch.arange(20, 31)[None]).detach().requires_grad_()
    with counted(SHAPE) as work:
        torch.autograd.grad(model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, 5], embeddings)
    assert work.weight_layers == 0
    assert work.backward_layers == pytest.approx(3 * 11)


def test_batched_gradients_count_once_per_row_of_the_batch() -> None:
    model = build(SHAPE).requires_grad_(False)
    embeddings = model.get_input_embeddings()(torch.arange(20, 31)[None]).detach().requires_grad_()
    scores = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, 5:9]
    with counted(SHAPE) as together:
        torch.autograd.grad(scores, embeddings, torch.eye(4), retain_graph=True, is_grads_batched=True)
    assert together.backward_layers == 0  # the forward pass, and its hooks, lie before
    with counted(SHAPE) as together:
        scores = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1, 5:9]
        torch.autograd.grad(scores, embeddings, torch.eye(4), is_grads_batched=True)
    assert together.backward_layers == pytest.approx(4 * 3 * 11)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch compiles decompositions when it first does this
def test_forward_mode_counts_values_and_tangents() -> None:
    model = build(SHAPE, attention="eager").requires_grad_(False)
    embeddings = model.get_input_embeddings()(torch.arange(20, 31)[None]).detach()
    with counted(SHAPE) as work:
        torch.func.jvp(lambda x: model(inputs_embeds=x, use_cache=False).logits[0, -1, 5], (embeddings,), (embeddings,))
    assert work.token_layers == pytest.approx(2 * 3 * 11)


def test_the_fewest_rows_of_a_patching_grid_are_those_that_can_change() -> None:
    layers, tokens = 3, 5
    rows = fewest.residual_patches(layers, tokens)
    inputs, finished = (2 * layers - 1) * tokens, 2 * (layers - 1) * tokens + 1  # clean's last block is not needed
    for layer, place in itertools.product(range(layers), range(tokens)):
        changed = {place}
        for block in range(layer, layers):
            inputs += len(changed)
            changed = set(range(min(changed), tokens))  # attention carries a change to everything right of it
            finished += len(changed) if block < layers - 1 else 1
    assert rows.forward["qkv"] + rows.forward["kv"] == inputs
    assert rows.forward["mlp"] == rows.forward["out"] == finished


def test_kernel_variants_are_drawn_as_shap_draws_them() -> None:
    found = fewest.drawn(20, 200, "kernel", 0)
    assert 180 <= len(found) <= 200
    assert {tuple(not there for there in variant) for variant in found} == found
    assert [sum(sum(variant) == size for variant in found) for size in (0, 1, 19, 20)] == [1, 20, 20, 1]
    assert len(fewest.drawn(4, 16, "kernel", 0)) == 16


@pytest.mark.slow
def test_no_job_can_be_done_with_less_than_the_fewest() -> None:
    import pellucid

    for job in JOBS.values():
        sizes = job.sized(small=True)
        subject = pellucid.load(build(SHAPE))
        job.ours(subject, draw(sizes, SHAPE, 3))
        with counted(SHAPE) as work:
            job.ours(subject, draw(sizes, SHAPE, 1000))
        rows = job.rows(SHAPE, sizes)
        assert work.token_layers >= rows.token_layers(gated=False) * 0.999, job.name
        assert work.backward_layers >= rows.token_layers(gated=False, back=True) * 0.999, job.name
        assert work.logit_rows >= rows.forward["head"], job.name
        assert (rows.token_layers(gated=False, back=True) > 0) == job.backward


def test_random_orders_share_what_they_have_in_common() -> None:
    spans = [(0, 2), (2, 3), (3, 6)]
    rows = fewest.coalitions(1, spans, 50, 0, 0)  # so many orders meet all 8 coalitions
    assert rows.forward["head"] == 8
    prefixes = 2 * 2 + 4 * 1 + 8 * 3
    assert fewest.coalitions(2, spans, 50, 0, 0).forward["mlp"] == prefixes + 8


def test_the_floor_multiplies_the_rows_it_is_told() -> None:
    products = products_of({"qkv": 10, "out": 10, "mlp": 10, "head": 2}, {"mlp": 4}, 8, 33, gated=True)
    found = {(p.inputs, p.outputs): p.rows for p in products}
    assert found == {(8, 8): 40, (8, 32): 24, (32, 8): 18, (8, 33): 2}
    small = Floor([products[0]], layers=2)
    assert small.seconds() > 0
    assert small.described()["8x8"].split(",")[0] in ("plain", "packed", "switched")


@pytest.mark.parametrize("module", ["floor", "fewest"])
def test_the_floor_imports_nothing_of_ours(module: str) -> None:
    tree = ast.parse((ROOT / "bench" / f"{module}.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "torch", "numpy"}
    code = f"import sys, bench.{module}; sys.exit(any(name.split('.')[0] == 'pellucid' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
