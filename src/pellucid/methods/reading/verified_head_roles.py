"""Verified head roles: which heads look as if they played a role, and whether the role's behaviour needs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Fraction, Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.capture import capture
from pellucid.engine.coalitions import standard_error
from pellucid.engine.head_role_scores import Role, head_role_scores
from pellucid.engine.role_inputs import LISTS, causal
from pellucid.engine.token_losses import Text, token_losses, without_heads
from pellucid.models.subject import Subject


@method(
    rows=("MEC-5",),
    paper="arXiv:2209.11895",
    takes="models",
    produces="table",
    needs=("attention", "weights"),
    cost="(30*samples+100)*F",
)
def verified_head_roles(
    subject: Subject, *, prompts: Sequence[str] = (), answers: Sequence[str] = (),
    lists: Sequence[Sequence[str]] = LISTS, length: Positive = 16, context: Positive = 64, samples: Positive = 16,
    reach: Positive = 4, threshold: Fraction = 0.3, most: Positive = 6, seed: Count = 0,
) -> Table:  # fmt: skip
    """List the heads of each role by score, with what ablating them costs the behaviour that the role is for.

    Scores from 0 to 1: "previous", "duplicate", "induction": the share of attention on the token before, the same token
    earlier and the one after that, on random tokens that come twice (or up to `reach` places away: heads that look as
    far do induction together); "copying": of tokens that the OV circuit raises most, "successor": of words in `lists`
    whose next it raises most; "retrieval": of a needle's tokens that the head looks at most while they are repeated
    behind a long context; "name mover": the last token's attention on places in `prompts` from which the head raises
    the answer among its five highest logits. `effect` is the rise of the loss, in nats, on the second time, the needle,
    the next word or the answer when the head's output is its mean over the inputs. Exact for the inputs drawn (Olsson
    et al. 2022, arXiv:2209.11895; Gould et al. 2023, arXiv:2312.09230; Wu et al. 2024, arXiv:2404.15574; Wang et al.
    2022, arXiv:2211.00593).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        prompts: texts that hold the answer, such as indirect-object sentences; without any, no name movers.
        answers: what continues each prompt, with its leading space.
        lists: words in order; those that are single tokens count.
        length: random tokens that are repeated; fewer where the model takes no more.
        context: random tokens around a needle.
        samples: random texts, each with random heads of its own to compare with.
        reach: how far away "previous" and "induction" may look; 1 is the strict definition.
        threshold: smallest score of a head that has a role.
        most: heads of a role.
        seed: of texts and random heads.

    Returns:
        Table with the columns role, layer, head, score, away (places), mean_score (over all heads) and effect. For each
        role the evidence compares the ablation of its heads together with that of as many random heads without it, of
        the same layers while these have any, paired, with a 95 % interval over texts; `ok` where it lies above 0.

    Raises:
        CapabilityError: a model that is no pre-norm causal language model.
        InputError: not as many answers as prompts, or a length of 1.
    """
    causal(subject, "verified_head_roles")
    if length < 2:
        raise InputError(f"Repeating {length} token shows no role; use a length of at least 2.")
    rng = np.random.default_rng(seed)
    roles = head_role_scores(subject, prompts, answers, lists, (length, context, samples, reach), rng)
    rows, checks = _checked(subject, roles, threshold, most, rng)
    columns = ("role", "layer", "head", "score", "away", "mean_score", "effect")
    return Table(title="Verified head roles", columns=columns, rows=tuple(rows), evidence=tuple(checks))


def _checked(
    subject: Subject, roles: Sequence[Role], threshold: float, most: int, rng: np.random.Generator
) -> tuple[list[tuple[str | int | float, ...]], list[Evidence]]:
    """Return the rows of the table, and the check of every role."""
    rows: list[tuple[str | int | float, ...]] = []
    checks: list[Evidence] = []
    means: dict[tuple[Text, ...], dict[int, torch.Tensor]] = {}
    for role in roles:
        order = np.argsort(-role.scores, axis=None, kind="stable")[:most]
        places = [divmod(int(i), role.scores.shape[1]) for i in order]
        heads = [place for place in places if role.scores[place] >= threshold]
        if heads and role.texts not in means:
            means[role.texts] = _means(subject, role.texts)
        effects, check = _ablated(subject, role, heads, means.get(role.texts, {}), rng)
        average = float(role.scores.mean())
        rows += [
            (role.name, *head, float(role.scores[head]), int(role.away[head]), average, effect)
            for head, effect in zip(heads, effects, strict=True)
        ]
        checks.append(check)
    return rows, checks


def _means(subject: Subject, texts: Sequence[Text]) -> dict[int, torch.Tensor]:
    """Return the mean output of every head over all tokens of texts: layer -> [head, width]."""
    found = [capture(subject, list(text.ids), ["blocks.*.attn.z"]) for text in texts]
    return {
        layer: torch.cat([one[f"blocks.{layer}.attn.z"] for one in found]).mean(0) for layer in range(subject.layers)
    }


def _ablated(
    subject: Subject, role: Role, heads: Sequence[tuple[int, int]], means: dict[int, torch.Tensor],
    rng: np.random.Generator,
) -> tuple[list[float], Evidence]:  # fmt: skip
    """Return the rise of the loss without each head, and the check of all of them against random heads."""
    if not heads:
        best = float(role.scores.max())
        text = f"No head plays the role {role.name!r}; the highest score is {best:.2f}."
        return [], Evidence(f"role: {role.name}", text, {"highest": best})
    others = [_others(role.scores < min(role.scores[head] for head in heads), heads, rng) for _ in role.texts]
    sets = [[()] * len(role.texts), *([[head]] * len(role.texts) for head in heads), [heads] * len(role.texts), others]
    flat = [without_heads(means, one) for group in sets for one in group]
    losses = token_losses(subject, list(role.texts) * len(sets), flat)
    by_set = np.array([loss.mean() for loss in losses]).reshape(len(sets), -1)
    rise = by_set - by_set[0]
    more = rise[-2] - rise[-1]
    half = float("nan")
    if len(more) > 1:
        half = float(stats.t.ppf(0.975, len(more) - 1) * standard_error(more[:, None])[0])
    names = ", ".join(f"{layer}.{head}" for layer, head in heads)
    check = Evidence(
        f"role: {role.name}",
        f"Without {names} the loss rises from {by_set[0].mean():.3g} by "
        f"{rise[-2].mean():.3g} nats, without as many random heads without the role by {rise[-1].mean():.3g}; the "
        f"difference is {more.mean():.3g}, 95 % interval +- {half:.2g} over {len(more)} texts.",
        {"loss": float(by_set[0].mean()), "effect": float(rise[-2].mean()), "random": float(rise[-1].mean()),
         "difference": float(more.mean()), "half_width": half, "texts": float(len(more))},
        ok=bool(more.mean() - half > 0) if len(more) > 1 else None,
    )  # fmt: skip
    return [float(one.mean()) for one in rise[1 : 1 + len(heads)]], check


def _others(free: np.ndarray, heads: Sequence[tuple[int, int]], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return as many random heads out of `free`, of the same layers; of other layers where these have none left."""
    left = [(int(layer), int(head)) for layer, head in np.argwhere(free)]
    found: list[tuple[int, int]] = []
    for layer, _ in heads:
        same = [place for place in left if place[0] == layer] or left
        if same:
            found.append(same[int(rng.integers(len(same)))])
            left.remove(found[-1])
    return found
