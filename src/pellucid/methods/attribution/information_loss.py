"""Information loss: how much noise a word bears before a layer's representation notices."""

from __future__ import annotations

import math

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PositiveFloat, PromptLike, SiteName, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.planning import check_cancelled
from pellucid.engine.question import per_unit
from pellucid.engine.targets import resolve
from pellucid.engine.variants import row, token_site, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

RATE = 0.1


@method(
    rows=("FAP-7",),
    paper="Guan et al. 2019, PMLR 97:2454-2463",
    takes="prompt",
    produces="scores",
    axes=("unit",),
    needs=("gradients", "activations"),
    cost="(steps*samples+3)*F+steps*samples*B",
)
def information_loss(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token",
    site: SiteName | None = None, position: int | None = None, trade: PositiveFloat = 0.1, steps: Positive = 60,
    samples: Positive = 4, seed: int = 0,
) -> Scores:  # fmt: skip
    """Score each unit by the entropy of the largest noise that a representation lets pass: what is forgotten of it.

    Noise eps_i ~ N(0, sigma_i^2 I) is added to the token embeddings, and sigma minimises
    E |Phi(x + eps) - Phi(x)|^2 / var(Phi) - trade * mean_i log sigma_i (both terms per dimension) by `steps` steps of
    Adam on sampled noise. H_i = log sigma_i + log(2 pi e) / 2: the higher, the more of the word is discarded. Where
    Phi is the embedding itself, sigma_i^2 = trade * var(Phi) / 2 for every word. Approximation: the optimum of a
    sampled loss (Guan et al. 2019, PMLR 97:2454-2463).

    Args:
        subject: the model, from `pellucid.load`.
        prompt: text, chat or token ids.
        target: only names the target in the result; none is needed.
        unit: "token", "word", "sentence", "line", "message" or token ranges; the mean over their tokens.
        site: the representation Phi, such as "blocks.1.resid_post"; None means the output of the last block.
        position: read Phi at this position alone, for example the last one, -1; None means everywhere.
        trade: weight of the entropy; larger means more noise everywhere.
        steps: steps of the optimisation.
        samples: noisy copies per step.
        seed: of the noise.

    Returns:
        Scores [unit] in nats per dimension; the evidence says how far Phi moves and whether the loss has settled.

    Raises:
        InputError: a position outside the prompt, or a representation that does not vary.
    """
    tokens = subject.encode(prompt)
    units = subject.units(tokens, unit)
    described = resolve(subject, tokens, target).description if target is not None else "the representation"
    if len(units) == 0 or (position is not None and not -len(tokens) <= position < len(tokens)):
        raise InputError(
            f"The prompt has {len(tokens)} tokens and {len(units)} units, so nothing can be read at position "
            f"{position}; give a longer prompt or another position."
        )
    place = site or expand(subject, part_name(subject, "resid_post"))[-1]
    log_sigma, distances = _fit(subject, tokens, units.positions(), place, position, trade, steps, samples, seed)
    entropy = np.zeros((len(tokens), 1))
    entropy[list(units.positions()), 0] = log_sigma + 0.5 * math.log(2 * math.pi * math.e)
    sizes = np.array([end - start for start, end in units.spans])[:, None]
    return Scores(
        title=f"Information loss at {place}", values=(per_unit(entropy, units) / sizes)[:, 0], tokens=tokens,
        units=units, labels={"unit": units.labels}, target=described, unit="nats per dimension",
        sign="larger means more of the unit is discarded", evidence=(_settled(distances),),
    )  # fmt: skip


def _fit(
    subject: Subject, tokens: Tokens, positions: tuple[int, ...], site: str, position: int | None, trade: float,
    steps: int, samples: int, seed: int,
) -> tuple[np.ndarray, list[float]]:  # fmt: skip
    """Return log sigma of every position that belongs to a unit, and the distance term of every step."""
    name = token_site(subject)
    start = capture(subject, tokens, [name, site])
    embeddings, still = start[name].float(), _at(start[site], position).float()
    spread = float(still.var())
    if not spread > 0:
        raise InputError(
            f"The representation at {site} is the same everywhere, so no noise can change it; name another."
        )
    generator = torch.Generator().manual_seed(seed)
    first = math.log(0.1 * float(embeddings.std()) + 1e-12)
    log_sigma = torch.full((len(positions),), first, device=embeddings.device, requires_grad=True)
    adam, distances = torch.optim.Adam([log_sigma], lr=RATE), list[float]()
    for _ in range(steps):
        check_cancelled()
        noise = torch.randn((samples, len(positions), embeddings.shape[1]), generator=generator).to(embeddings)
        added = noise * log_sigma.exp()[None, :, None]
        rows = [
            row(subject, tokens, whole(tokens), (), (Edit(name, "add", a, {"position": positions}),)) for a in added
        ]
        with torch.enable_grad():
            output = forward(subject, rows, capture=[site], grad=True)
            moved = torch.stack([_at(output.row(site, i), position) for i in range(samples)]).float()
            distance = (moved - still).square().mean() / spread
            (log_sigma.grad,) = torch.autograd.grad(distance - trade * log_sigma.mean(), [log_sigma])
        subject.count(backwards=samples)
        adam.step()
        distances.append(float(distance.detach()))
    return log_sigma.detach().double().cpu().numpy(), distances


def _at(value: torch.Tensor, position: int | None) -> torch.Tensor:
    return value if position is None else value[position]


def _settled(distances: list[float]) -> Evidence:
    tail = max(1, len(distances) // 6)
    last, before = float(np.mean(distances[-tail:])), float(np.mean(distances[-2 * tail : -tail] or distances[-tail:]))
    change = abs(last - before) / max(last, 1e-12)
    return Evidence(
        "optimisation",
        f"The noise moves the representation by {last:.3g} of its variance, which changed by {100 * change:.0f} % over "
        "the last sixth of the steps.",
        {"distance": last, "change": change},
        {"x": tuple(float(i) for i in range(len(distances))), "distance": tuple(distances)},
        ok=change < 0.25,
    )
