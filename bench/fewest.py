"""The fewest rows of each weight product that a job needs. Imports nothing of pellucid.

A row of a product is needed once if its input differs from that of every other row, and not at all if nothing that is
read depends on it: past the last attention only the rows that are read, below an edit nothing, left of it nothing.
Products of attention itself, norms and the softmax are left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np

# Products of one block: query, key and value at once; key and value; query; output; both (or all three) of the
# feed-forward layer. "head" is the unembedding.
PRODUCTS = ("qkv", "kv", "q", "out", "mlp", "head")


@dataclass
class Rows:
    """Rows of each product over all layers, forward and backward (through the transposed weights)."""

    forward: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    backward: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def block(self, rows: float, read: float, last: bool, entering: float | None = None, back: bool = False) -> None:
        """Add one block: `rows` positions, of which the last block must only finish the `read` ones.

        `entering` are the rows that differ where the block begins, if they are fewer.
        """
        into, begin = self.backward if back else self.forward, rows if entering is None else entering
        if last:
            into["kv"] += begin
            into["q"] += read
            into["out"] += read
            into["mlp"] += read
        else:
            into["qkv"] += begin
            into["out"] += rows
            into["mlp"] += rows

    def run(self, layers: int, rows: float, read: float, *, first: float | None = None, back: bool = False) -> None:
        """Add a run through all blocks; `first` are the rows that differ at the first block's input."""
        for layer in range(layers):
            self.block(rows, read, layer == layers - 1, first if layer == 0 else None, back)

    def token_layers(self, gated: bool, back: bool = False) -> float:
        """Return the rows as token-layers: each product as its share of a block's weights."""
        mlp = 12 if gated else 8
        share = {"qkv": 3, "kv": 2, "q": 1, "out": 1, "mlp": mlp, "head": 0}
        rows = self.backward if back else self.forward
        return sum(share[name] * count for name, count in rows.items()) / (4 + mlp)


def path_gradients(layers: int, steps: int, tokens: int, continuation: int) -> Rows:
    """Gradients at `steps` points of the prompt's embeddings: one logit, or the sum over a continuation."""
    rows = Rows()
    forced, read = max(0, continuation - 1), max(1, continuation)
    length = tokens + forced
    rows.run(layers, steps * length, steps * read, first=steps * tokens + forced)
    rows.run(layers, steps * length, steps * read, first=steps * tokens, back=True)
    rows.forward["head"] += steps * read
    rows.backward["head"] += steps * continuation  # the gradient of a single logit is a column of the unembedding
    return rows


def gradient_matrix(layers: int, tokens: int, continuation: int) -> Rows:
    """One forward, and one backward per target token over what stands before it."""
    rows = Rows()
    rows.run(layers, tokens + continuation - 1, continuation)
    rows.forward["head"] += continuation
    for target in range(continuation):
        rows.run(layers, tokens + target, 1, first=tokens, back=True)
    rows.backward["head"] += continuation
    return rows


def occlusion(layers: int, tokens: int, continuation: int) -> Rows:
    """The prompt, and for each token the prompt with that token replaced, from there on."""
    rows = Rows()
    length, read = tokens + max(0, continuation - 1), max(1, continuation)
    changed = sum(length - place for place in range(tokens))
    rows.run(layers, length + changed, (tokens + 1) * read, first=length + tokens)
    rows.forward["head"] += (tokens + 1) * read
    return rows


def coalitions(layers: int, spans: Iterable[tuple[int, int]], permutations: int, continuation: int, seed: int) -> Rows:
    """The coalitions on random orders; what two of them have in common from the left is one run."""
    spans = list(spans)
    rng = np.random.default_rng(seed)
    masks = {tuple([False] * len(spans))}
    for _ in range(permutations):
        present = [False] * len(spans)
        for player in rng.permutation(len(spans)):
            present[player] = True
            masks.add(tuple(present))
    return subsets(layers, spans, masks, continuation)


def subsets(
    layers: int, spans: Iterable[tuple[int, int]], masks: Iterable[tuple[bool, ...]], continuation: int,
    question: int = 0, deleted: bool = False,
) -> Rows:  # fmt: skip
    """Variants of a prompt; what two of them have in common from the left is one run. Units may be left out whole."""
    sizes, masks = [end - start for start, end in spans], set(masks)
    starts = {mask[: place + 1] for mask in masks for place in range(len(sizes)) if mask[place] or not deleted}
    prefixes = sum(sizes[len(start) - 1] for start in starts)
    read, tokens = max(1, continuation), sum(sizes)
    rows = Rows()
    behind = question + read - 1
    first = prefixes + behind * len(masks) if deleted else 2 * tokens + behind
    rows.run(layers, prefixes + len(masks) * behind, len(masks) * read, first=first)
    rows.forward["head"] += len(masks) * read
    return rows


def lengths(
    layers: int, spans: Iterable[tuple[int, int]], masks: Iterable[tuple[bool, ...]], question: int
) -> Rows:  # fmt: skip
    """Variants of a prompt of an encoder, units left out whole: nothing can be shared, each needs its own length."""
    sizes, masks = [end - start for start, end in spans], set(masks)
    kept = sum(size for mask in masks for size, there in zip(sizes, mask, strict=True) if there)
    rows = Rows()
    rows.run(layers, kept + question * len(masks), len(masks))
    return rows


def drawn(players: int, samples: int, sizes: str, seed: int) -> set[tuple[bool, ...]]:
    """Draw variants whose number of units follows the Shapley kernel, is uniform, or that keep each by chance 1/2.

    With the kernel, as SHAP does: outer sizes that the samples suffice for are taken whole, others drawn in pairs of
    a variant and its complement.
    """
    rng = np.random.default_rng(seed)
    if sizes == "kernel":
        return _of_the_kernel(players, samples, rng)
    if sizes == "chance":
        return {tuple(row) for row in (rng.random((samples, players)) < 0.5).tolist()}
    count = np.arange(1, players)
    kept = rng.choice(count, samples)
    rank = rng.random((samples, players)).argsort(1).argsort(1)
    return {tuple(row) for row in (rank < kept[:, None]).tolist()} | {(True,) * players, (False,) * players}


def _of_the_kernel(players: int, samples: int, rng: np.random.Generator) -> set[tuple[bool, ...]]:
    if 2**players <= samples:
        return set(product((True, False), repeat=players))
    chance = {size: 1 / (size * (players - size)) for size in range(1, players)}
    found, left = {(True,) * players, (False,) * players}, samples - 2
    for size in range(1, (players + 1) // 2):
        number = 2 * math.comb(players, size)
        if left * (chance[size] + chance[players - size]) / sum(chance.values()) < number or left - number < 8:
            break
        for chosen in combinations(range(players), size):
            variant = tuple(unit in chosen for unit in range(players))
            found |= {variant, tuple(not there for there in variant)}
        left -= number
        del chance[size], chance[players - size]
    shares = np.array(list(chance.values()))
    for size in rng.choice(list(chance), left // 2, p=shares / shares.sum()):
        variant = tuple((rng.permutation(players) < size).tolist())
        found |= {variant, tuple(not there for there in variant)}
    return found


def residual_patches(layers: int, tokens: int) -> Rows:
    """The corrupted run, the clean one up to the last block, and one patch at the input of every block and position."""
    rows = Rows()
    rows.run(layers, tokens, 1)
    for _ in range(layers - 1):
        rows.block(tokens, 0, last=False)
    cone = sum(tokens - place for place in range(tokens))
    for layer in range(layers):
        rows.block(layer * cone, layer * tokens, layer == layers - 1)  # patched below this block
        rows.block(cone, tokens, layer == layers - 1, entering=tokens)  # patched at its input
    rows.forward["head"] += 1 + layers * tokens
    return rows


def head_patches(layers: int, heads: int, tokens: int) -> Rows:
    """Both runs, and one patch of every head at all positions: from the block's output projection on."""
    rows = Rows()
    rows.run(layers, tokens, 1)
    for _ in range(layers - 1):
        rows.block(tokens, 0, last=False)
    rows.block(tokens, 0, last=True)
    rows.forward["q"] += 1  # of the clean run's last block only the heads at the last position are needed
    for layer in range(layers):
        last = layer == layers - 1
        finished = heads * (1 if last else tokens)
        rows.forward["out"] += finished / heads  # only the head's own columns change
        rows.forward["mlp"] += finished
        rows.block(layer * heads * tokens, layer * heads, last)
    rows.forward["head"] += 1 + layers * heads
    return rows


def causal_tracing(layers: int, tokens: int, noise: int, subject: int, window: int) -> Rows:
    """The clean run, the noisy ones, and each restored place; left of the subject nothing differs from clean.

    `window` 1 restores the stream behind a block; a longer one the feed-forward outputs of the blocks around it.
    """
    rows = Rows()
    rows.run(layers, tokens, 1)
    rows.run(layers, noise * (tokens - subject), noise)
    places = range(subject, tokens)
    cone = noise * sum(tokens - place for place in places)
    finished: set[tuple[int, int]] = set()
    for layer in range(layers):
        first, last = (layer, layer + 1) if window == 1 else (max(0, layer - window // 2), layer + (window + 1) // 2)
        for block in range(first + 1, layers):
            # Windows that have restored the same blocks so far are one run so far.
            state = (first, min(last, block + 1)) if window > 1 else (first, 0)
            if (block, *state) in finished:
                continue
            finished.add((block, *state))
            restored = window > 1 and block < last
            final = block == layers - 1
            begins = block == first + 1
            read = noise * len(places)
            rows.block(cone, read, final, entering=noise * len(places) if begins else None)
            if restored:
                rows.forward["mlp"] -= noise if final else read  # the restored position's feed-forward is given
        # Behind the last block, what is restored at the position that is read is the clean run, which is known.
        rows.forward["head"] += noise * len(places) if first < layers - 1 else 0
    rows.forward["head"] += 1 + noise
    return rows


def one_forward(layers: int, tokens: int) -> Rows:
    """The prompt, and one row of logits."""
    rows = Rows()
    rows.run(layers, tokens, 1)
    rows.forward["head"] += 1
    return rows


def value_zeroing(layers: int, tokens: int, heads: int, read: int = 1) -> Rows:
    """The prompt, and every block behind attention for each pair of a token and one that it sees.

    What attention gives is a sum over tokens and heads, and a gated layer's first two products are linear behind a
    norm, so they need a row for each token and head at most. Of the last block only the positions that are read are
    compared, and no logit is needed.
    """
    rows = Rows()
    rows.run(layers, tokens, read)
    pairs, last = tokens * (tokens + 1) / 2, sum(range(tokens - read + 1, tokens + 1))
    for count, blocks in ((pairs, layers - 1), (last, 1)):
        rows.forward["mlp"] += blocks * (count / 3 + 2 / 3 * min(count, tokens * heads))
    return rows


def plain_forward(layers: int, batch: int, tokens: int) -> Rows:
    """A batch with every logit."""
    rows = Rows()
    for _ in range(layers):
        rows.block(batch * tokens, 0, last=False)
    rows.forward["head"] += batch * tokens
    return rows
