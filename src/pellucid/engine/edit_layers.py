"""Where to edit: the layer and the token whose feed-forward output brings a fact back, by causal tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from pellucid.core.facts import Fact
from pellucid.core.results import Evidence
from pellucid.core.targets import Target
from pellucid.engine.capture import capture, expand
from pellucid.engine.cone import score_edits
from pellucid.engine.edit_requests import Place, subject_position
from pellucid.engine.targets import resolve
from pellucid.models.edits import Edit

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

NOISE = 3.0  # standard deviations of the embedding table, as in the paper
MOST_FACTS = 8
PLACES: tuple[Place, ...] = ("subject", "last")


def traced_effects(subject: Subject, facts: Sequence[Fact], samples: int = 3, seed: int = 0) -> np.ndarray:
    """Return how much probability of the model's answer feed-forward outputs bring back: [2, layers].

    Causal tracing (Meng et al. 2022) at the subject's last token (first row) and the prompt's (second row): noise on
    the embeddings of the subject, the clean outputs of a quarter of the layers around each one put back; the mean over
    at most 8 facts and the draws.
    """
    names = expand(subject, "blocks.*.mlp.out")
    reach = max(1, round(len(names) / 4))
    windows = [names[max(0, i - (reach - 1) // 2) : i + reach // 2 + 1] for i in range(len(names))]
    found = np.zeros((len(PLACES), len(names)))
    some = facts[:MOST_FACTS]
    for number, fact in enumerate(some):
        tokens = subject.encode(fact.text)
        start, end = fact.span
        last = subject_position(tokens, end, fact.subject)
        noisy = [i for i, (a, b) in enumerate(tokens.offsets or ()) if start < b and i <= last and a < end] or [last]
        readout = resolve(subject, tokens, Target(None, measure="prob"))
        clean = capture(subject, tokens, names)
        sets: list[tuple[Edit, ...]] = []
        for draw in range(samples):
            noise = _noise(subject, noisy, seed + 1000 * number + draw)
            sets.append((noise,))
            for at in (last, len(tokens) - 1):
                put = {name: Edit(name, "patch_from", clean[name], {"position": at}) for name in names}
                sets += [(noise, *(put[name] for name in window)) for window in windows]
        scores = score_edits(subject, tokens, readout, sets).sum(1).reshape(samples, -1)
        found += (scores[:, 1:] - scores[:, :1]).mean(0).reshape(found.shape) / len(some)
    return found


def strongest(effects: np.ndarray, count: int) -> list[int]:
    """Return the `count` neighbouring layers whose effects sum to most."""
    count = min(count, len(effects))
    sums = np.convolve(effects, np.ones(count), "valid")
    return list(range(int(sums.argmax()), int(sums.argmax()) + count))


def _noise(subject: Subject, places: Sequence[int], seed: int) -> Edit:
    table = subject.model.get_input_embeddings()
    with torch.no_grad():
        ids = torch.arange(0, subject.vocabulary, max(1, subject.vocabulary // 512), device=subject.input_device)
        some = table(ids).float()
    generator = torch.Generator().manual_seed(seed)
    drawn = NOISE * some.std().cpu() * torch.randn(len(places), some.shape[-1], generator=generator)

    def add(value: torch.Tensor, context: object) -> torch.Tensor:
        return value + drawn.to(value)

    return Edit("embed.token", add, where={"position": tuple(places)})


def evidence(effects: np.ndarray, place: Place, layers: Sequence[int]) -> Evidence:
    """Return what tracing found, and the place and the layers that are edited."""
    row = effects[PLACES.index(place)]
    token = {"subject": "the subject's last token", "last": "the prompt's last token"}[place]
    return Evidence(
        name="causal tracing",
        summary=f"Edited at layers {', '.join(map(str, layers))} and {token}, where feed-forward outputs bring back "
        f"{float(row[list(layers)].max()):.3g} of the answers' probability, of at most {float(effects.max()):.3g}.",
        values={f"{PLACES[i]}, layer {at}": float(value) for (i, at), value in np.ndenumerate(effects)},
    )
