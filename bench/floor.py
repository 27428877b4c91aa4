"""The machine's limit for a job: its weight products alone, on the fastest kernel found. Imports nothing of ours.

`Floor` is told the products as rows of given shapes, finds the best kernel and batch for each, and times a sample of
them; all of them take as much longer as there are more rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

ROWS = (256, 1024)
SECONDS = 0.08  # spent on one product, at least, in the search and in each sample
COLD_BYTES = 48 << 20  # of different weights in turn, so that they come from memory as they do in a model
Multiply = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Product:
    """`rows` positions through a matrix of `inputs` x `outputs`."""

    rows: float
    inputs: int
    outputs: int


def plain(weight: torch.Tensor, rows: int) -> Multiply:
    """Return the product as torch does it by default; weight is [outputs, inputs]."""
    return lambda x: torch.nn.functional.linear(x, weight)


def packed(weight: torch.Tensor, rows: int) -> Multiply:
    """Return the product with the weight reordered once for oneDNN."""
    ops: Any = torch.ops.mkldnn
    ready = ops._reorder_linear_weight(weight.to_mkldnn(), rows)
    return lambda x: ops._linear_pointwise(x, ready, None, "none", [], "")


def switched(weight: torch.Tensor, rows: int) -> Multiply:
    """Return the product under the public switch that sends float32 products to oneDNN's bfloat16 path."""
    backend: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]

    def multiply(x: torch.Tensor) -> torch.Tensor:
        before = backend.fp32_precision
        backend.fp32_precision = "bf16"
        try:
            return torch.nn.functional.linear(x, weight)
        finally:
            backend.fp32_precision = before

    return multiply


KERNELS: dict[str, Callable[[torch.Tensor, int], Multiply]] = {"plain": plain, "packed": packed, "switched": switched}


def accurate(name: str, device: str) -> bool:
    """Return whether a kernel runs here and is as exact as float32 products are: its error is measured, not assumed."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(256, 768, generator=generator).to(device) for _ in range(2))
    exact = x.double() @ weight.double().T
    try:
        found = KERNELS[name](weight, 256)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((found.double() - exact).abs().max() <= 1e-5 * exact.abs().max())


class Floor:
    """The products of one job on one machine."""

    def __init__(self, products: Sequence[Product], layers: int, device: str = "cpu") -> None:
        """Find the best kernel and number of rows for every shape; this is not part of any timed run."""
        self.products, self.layers, self.device = products, layers, device
        self.names = [name for name in KERNELS if device == "cpu" or name == "plain"]
        self.names = [name for name in self.names if accurate(name, device)]
        self.chosen: dict[tuple[int, int], tuple[str, int]] = {}
        self.weights: dict[tuple[int, int], list[torch.Tensor]] = {}
        self.ready: dict[tuple[int, int], list[Multiply]] = {}
        for product in products:
            shape = (product.inputs, product.outputs)
            if shape not in self.chosen:
                self.chosen[shape] = self._search(*shape, most=product.rows)

    def _search(self, inputs: int, outputs: int, most: float) -> tuple[str, int]:
        count = min(self.layers, max(1, COLD_BYTES // (4 * inputs * outputs)))
        self.weights[inputs, outputs] = [torch.randn(outputs, inputs, device=self.device) for _ in range(count)]
        best = (float("inf"), "plain", ROWS[0])
        for name in self.names:
            for rows in ROWS:
                if rows > max(most, ROWS[0]):
                    continue
                multiply = [KERNELS[name](weight, rows) for weight in self.weights[inputs, outputs]]
                best = min(best, (self._per_row(multiply, inputs, rows), name, rows))
                del multiply
        _, name, rows = best
        self.ready[inputs, outputs] = [KERNELS[name](weight, rows) for weight in self.weights[inputs, outputs]]
        return name, rows

    def _per_row(self, multiply: list[Multiply], inputs: int, rows: int) -> float:
        x = torch.randn(rows, inputs, device=self.device)
        multiply[0](x)
        self._wait()
        start, done = time.perf_counter(), 0
        while True:
            multiply[done % len(multiply)](x)
            done += 1
            if done % len(multiply) == 0:
                self._wait()
                if time.perf_counter() - start > SECONDS:
                    return (time.perf_counter() - start) / (done * rows)

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def seconds(self) -> float:
        """Time a sample of each product and return what all of them take."""
        total = 0.0
        for product in self.products:
            shape = (product.inputs, product.outputs)
            total += product.rows * self._per_row(self.ready[shape], product.inputs, self.chosen[shape][1])
        return total

    def described(self) -> dict[str, str]:
        """Return the kernel and the rows chosen for every shape."""
        return {f"{k}x{n}": f"{name}, {rows} rows" for (k, n), (name, rows) in self.chosen.items()}


def products_of(rows: dict[str, float], back: dict[str, float], width: int, words: int, gated: bool) -> list[Product]:
    """Return the products at their shapes; a gated model keeps query, key, value and gate as matrices of their own."""
    found: list[Product] = []

    def add(count: float, inputs: int, outputs: int, backward: bool) -> None:
        if count:
            found.append(Product(count, *((outputs, inputs) if backward else (inputs, outputs))))

    for counts, backward in ((rows, False), (back, True)):
        for name, together in (("qkv", 3), ("kv", 2), ("q", 1)):
            count = counts.get(name, 0)
            add(count * together if gated else count, width, width if gated else together * width, backward)
        add(counts.get("out", 0), width, width, backward)
        add(counts.get("mlp", 0) * (2 if gated else 1), width, 4 * width, backward)
        add(counts.get("mlp", 0), 4 * width, width, backward)
        add(counts.get("head", 0), width, words, backward)
    merged: dict[tuple[int, int], float] = {}
    for product in found:
        shape = (product.inputs, product.outputs)
        merged[shape] = merged.get(shape, 0.0) + product.rows
    return [Product(count, *shape) for shape, count in merged.items()]
