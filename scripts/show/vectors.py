"""Vector methods: their sums, their agreement with plain loops, their price, on every architecture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from scripts.show import Shown, line

METHODS = (
    "alti", "alti_logit", "decompx", "globenc", "information_flow_routes", "mixing_ratio", "norm_based_attention",
    "value_zeroing",
)  # fmt: skip
IDS = [11, 42, 7, 23, 64, 5]
TOKENS = 64


def models() -> dict[str, Any]:
    """Return every tiny model that answers with a logit, in float64."""
    import pellucid
    from tests.test_contract import EVERYWHERE
    from tests.tiny import TINY

    names = [str(parameter.values[0]) for parameter in EVERYWHERE]
    return {name: pellucid.load(TINY[name]().double()) for name in names}


@line(
    "transformed vectors and bias sum to the attention output, every block", bar="<= 1e-9 in float64, all tiny models"
)
def vectors_sum(out: Path) -> Shown:
    """Add up the vectors of every block."""
    import torch

    from pellucid.engine.transformed import attention_blocks

    worst, count = 0.0, 0
    found = models()
    for subject in found.values():
        for block in attention_blocks(subject, subject.encode(IDS)):
            total = torch.cat([vectors.sum(1) for _, vectors in block.vectors()]) + block.bias
            worst, count = max(worst, float((total - block.attended).abs().max())), count + 1
    return Shown(f"{count} blocks of {len(found)} architectures, largest gap {worst:.1e}", worst <= 1e-9)


@line("DecompX and ALTI-Logit sum to the logit", bar="<= 1e-6 in float64, where defined; else refused with a reason")
def logits_sum(out: Path) -> Shown:
    """Compare the sums with the logit on every architecture."""
    import pellucid
    from pellucid.core.errors import CapabilityError

    worst, refused, count = dict.fromkeys(("decompx", "alti_logit"), 0.0), [], 0
    for name, subject in models().items():
        for method in worst:
            try:
                found = pellucid.run(method, subject, IDS, target=1, contrast=2).evidence[0].values["residual"]
            except CapabilityError:
                refused.append(f"{method} on {name}")
                continue
            worst[method], count = max(worst[method], found), count + 1
    figure = ", ".join(f"{method} {gap:.1e}" for method, gap in worst.items())
    return Shown(f"{count} answers, largest gaps: {figure}; refused: {', '.join(refused)}", max(worst.values()) <= 1e-6)


@line("every vector method runs on every architecture where it is defined", bar="finite, or refused with a reason")
def everywhere(out: Path) -> Shown:
    """Run all methods on all tiny models."""
    import numpy as np

    import pellucid
    from pellucid.core.errors import CapabilityError
    from pellucid.core.results import Graph

    fine, refused, bad = 0, set[str](), []
    for name, subject in models().items():
        for method in METHODS:
            try:
                found = pellucid.run(method, subject, IDS, target=1)
            except CapabilityError as error:
                refused.add(f"{method} ({name}): {error}")
                continue
            fine += 1
            if not np.isfinite(found.weights if isinstance(found, Graph) else found.values).all():
                bad.append(f"{method} on {name}")
    (out / "refused.txt").write_text("\n".join(sorted(refused)) + "\n", encoding="utf-8")
    return Shown(f"{fine} finite, {len(refused)} refused" + (f"; not finite: {bad}" if bad else ""), not bad)


def small() -> tuple[Any, list[int]]:
    """Return a GPT-2 of six layers and a prompt."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=256, n_layer=6, n_head=8, n_positions=256, vocab_size=8000,
                                     bos_token_id=1, eos_token_id=2)  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval(), [3 + 37 * i % 7900 for i in range(TOKENS)]


def loop(model: Any, ids: list[int]) -> Any:
    """Zero the value of every token in every layer, one forward each, and roll out: the scores of the last row."""
    import torch

    blocks, place = model.transformer.h, [(-1, -1)]

    def zero(layer: int) -> Any:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            if place[0][0] != layer:
                return output
            output = output.clone()
            output[0, place[0][1], 2 * output.shape[-1] // 3 :] = 0
            return output

        return hook

    handles = [block.attn.c_attn.register_forward_hook(zero(layer)) for layer, block in enumerate(blocks)]
    kept: dict[int, torch.Tensor] = {}
    for layer, block in enumerate(blocks):
        keep = lambda module, inputs, output, layer=layer: kept.update(  # noqa: E731
            {layer: (output[0] if isinstance(output, tuple) else output)[0]}
        )
        handles.append(block.register_forward_hook(keep))
    total = torch.eye(len(ids))
    with torch.no_grad():
        model(torch.tensor([ids]))
        clean = dict(kept)
        for layer in range(len(blocks)):
            turned = torch.zeros(len(ids), len(ids))
            for token in range(len(ids)):
                place[0] = (layer, token)
                model(torch.tensor([ids]))
                turned[:, token] = 1 - torch.cosine_similarity(kept[layer], clean[layer], dim=-1)
            total = turned / turned.sum(-1, keepdim=True) @ total
    for handle in handles:
        handle.remove()
    return total[-1].numpy()


def seconds(work: Any, times: int = 3) -> float:
    """Return the shortest of a few runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


@line("value zeroing against a loop that hooks the value projection, one forward per token and layer",
      bar=f"equal to 1e-3 of the largest score, >= 10 times faster ({TOKENS} tokens, 6 layers)")  # fmt: skip
def zeroing(out: Path) -> Shown:
    """Time both on the same model and prompt."""
    import numpy as np
    import torch

    import pellucid

    torch.set_num_threads(1)
    model, ids = small()
    subject = pellucid.load(model)
    start = time.perf_counter()
    expected = loop(model, ids)
    plain = time.perf_counter() - start
    found = pellucid.run("value_zeroing", subject, ids, target=1).scores
    quick = seconds(lambda: pellucid.run("value_zeroing", subject, ids, target=1))
    gap = float(np.abs(found - expected).max() / expected.max())
    figure = f"{plain:.2f} s and {quick:.2f} s: {plain / quick:.1f} times; differs by {gap:.1e}"
    return Shown(figure, plain / quick >= 10 and gap < 1e-3)


@line("value zeroing behind attention against one forward per token", bar=f">= 10 times faster ({TOKENS} tokens)")
def zeroing_behind_attention(out: Path) -> Shown:
    """Time the cheaper form, and the full one beside it."""
    import torch

    import pellucid

    torch.set_num_threads(1)
    model, ids = small()
    subject = pellucid.load(model)
    inputs = torch.tensor([ids])

    def forwards() -> None:
        with torch.no_grad():
            for _ in ids:
                model(inputs)

    plain = seconds(forwards)
    quick, whole = (
        seconds(lambda compare=compare: pellucid.run("value_zeroing", subject, ids, target=1, compare=compare))
        for compare in ("attention", "block")
    )
    figure = f"{plain:.2f} s and {quick:.3f} s: {plain / quick:.1f} times (whole blocks: {plain / whole:.1f} times)"
    return Shown(figure, plain / quick >= 10)
