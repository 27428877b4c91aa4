"""GRACE: a codebook of activations and learned values that takes over near a fact and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import EditError
from pellucid.core.facts import Fact, as_facts
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive, PositiveFloat
from pellucid.core.results import Evidence, Learned
from pellucid.engine.activation_memory import APPLY, Lookup
from pellucid.engine.backward import frozen
from pellucid.engine.capture import capture
from pellucid.engine.edit_factors import rows_of
from pellucid.engine.lens import stream_sites
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

TINY = 1e-6


@method(
    rows=("N-ED2",),
    paper="arXiv:2211.11031",
    takes="dataset",
    produces="learned",
    needs=("gradients", "activations"),
)
def grace(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, layer: Count | None = None,
    radius: PositiveFloat = 0.3, steps: Positive = 40, rate: PositiveFloat = 0.1, enough: PositiveFloat = 0.02,
) -> Learned:  # fmt: skip
    """Learn a memory entry per fact: a key, a radius, and the activation that makes the target likely.

    The key is the stream behind a block at the prompt's last token, the value is found by Adam; a target of several
    tokens makes an entry per token. A token whose key falls
    into an entry with the same target only widens that entry's radius; with another target both radii shrink to half
    their distance, and a new entry is made (Hartvigsen et al. 2023, arXiv:2211.11031). Weights never change. Exact:
    where no activation lies within a radius, every output is bit for bit as before. The paper's keys are the inputs of
    a layer whose output is replaced; here both are the stream at one place.

    Use it with `subject.with_(pellucid.engine.activation_memory.memory_edit(memory))`.

    Args:
        subject: a decoder with a language-model head.
        facts: what to write, `Fact(prompt, subject, target)` or a list of them, one after the other.
        layer: the block; None means two thirds up.
        radius: of a new entry, as a share of its key's length: larger reaches more paraphrases, and more neighbours.
        steps: most steps of Adam per fact.
        rate: of Adam, as a share of the key's mean absolute component.
        enough: mean -log p per token of the target at which a value is good.

    Returns:
        Learned with `keys` and `values` [entries, dimension] and `radii` [entries].

    Raises:
        CapabilityError: no decoder.
        EditError: a loss that is no number.
        SiteError: no such layer.
    """
    rows = rows_of(subject, as_facts(facts))
    sites = stream_sites(subject, "resid_post")
    at = min(2 * len(sites) // 3, len(sites) - 1) if layer is None else layer
    site = sites[at] if at < len(sites) else f"blocks.{at}.resid_post"
    keys, values, radii, losses, targets = list[torch.Tensor](), list[torch.Tensor](), list[float](), list[float](), []
    for ids, target in [(row.ids[: row.prompt + i], token) for row in rows for i, token in enumerate(row.target)]:
        key = capture(_with(subject, site, keys, values, radii, ids), list(ids), [site])[site][-1].detach()
        distances = [float((key - other).norm()) for other in keys]
        near = min(range(len(keys)), key=lambda i: distances[i], default=-1)
        own = radius * float(key.norm())
        if near >= 0 and distances[near] < radii[near] + own:
            if targets[near] == target:
                radii[near] = max(radii[near], distances[near] + TINY * own)
                continue
            if distances[near] < TINY * own:  # the same prompt again: the later answer holds
                own = radii[near]
                for entries in (keys, values, radii, targets, losses):
                    del entries[near]
            else:
                own = radii[near] = distances[near] / 2
        told = _with(subject, site, keys, values, radii, ids)
        value, loss = _value(told, site, ids, target, key, (steps, rate, enough))
        keys.append(key)
        values.append(value)
        radii.append(own)
        targets.append(target)
        losses.append(loss)
    return _learned(site, keys, values, radii, losses, len(rows))


def _learned(
    site: str, keys: list[torch.Tensor], values: list[torch.Tensor], radii: list[float], losses: list[float], facts: int
) -> Learned:
    found = {"keys": torch.stack(keys).float(), "values": torch.stack(values).float()}
    tensors = {name: tensor.cpu().numpy() for name, tensor in found.items()} | {"radii": np.array(radii)}
    worst = max(losses)
    summary = f"{len(keys)} entries serve {facts} facts; the worst value leaves a loss of {worst:.3g} nats."
    check = Evidence("codebook", summary, {"entries": float(len(keys)), "facts": float(facts), "worst loss": worst})
    return Learned(f"GRACE: {len(keys)} entries", tensors=tensors, apply=APPLY, site=site).with_evidence(check)


def _with(
    subject: Subject, site: str, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor], radii: Sequence[float],
    ids: Sequence[int],
) -> Subject:  # fmt: skip
    """Return the subject with the entries so far at work on all tokens but the last, whose own key is wanted."""
    if not keys or len(ids) < 2:
        return subject
    lookup = Lookup(torch.stack(list(keys)), torch.stack(list(values)), torch.tensor(radii))
    return subject.with_(Edit(site, lookup, where={"position": list(range(len(ids) - 1))}))


def _value(
    subject: Subject, site: str, ids: Sequence[int], target: int, key: torch.Tensor, how: tuple[int, float, float]
) -> tuple[torch.Tensor, float]:
    """Return the activation that makes a token likely when it stands at the end of `ids`, and its loss."""
    steps, rate, enough = how
    value = key.detach().clone().to(torch.promote_types(key.dtype, torch.float32)).requires_grad_()
    optimiser = torch.optim.Adam([value], lr=rate * float(key.abs().mean()))
    best, least, last = value.detach().clone(), float("inf"), torch.tensor([[len(ids) - 1]])
    for step in range(steps + 1):
        edit = Edit(site, "set", value, {"position": len(ids) - 1})
        with subject.lock, frozen(subject.model), torch.enable_grad():
            logits = forward(subject, [Row(tuple(ids), edits=(edit,))], grad=True, wanted=last).logits[0, 0]
            loss = -logits.to(value.dtype).log_softmax(-1)[target]
        if not bool(torch.isfinite(loss)):
            raise EditError("The loss of a value became NaN or infinite; load the model in float32, or lower the rate.")
        if float(loss.detach()) < least:
            best, least = value.detach().clone(), float(loss.detach())
        if least < enough or step == steps:
            break
        optimiser.zero_grad()
        value.grad = torch.autograd.grad(loss, value)[0]
        subject.count(backwards=1)
        optimiser.step()
    return best, least
