"""Entity binding: is which attribute belongs to which entity a vector that can be taken off, moved and exchanged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Table
from pellucid.engine.binding_contexts import World, draw, first_token
from pellucid.engine.binding_tests import Asked, another, answer_margins, binding_tests
from pellucid.engine.role_inputs import causal
from pellucid.models.subject import Subject


@method(
    rows=("MEC-7",),
    paper="arXiv:2310.17191",
    takes="models",
    produces="table",
    needs=("activations", "logits"),
    cost="(20*samples+2*contexts)*F",
)
def entity_binding(
    subject: Subject, *, template: str, query: str, entities: Sequence[str], attributes: Sequence[str],
    contexts: Positive = 32, samples: Positive = 16, seed: Count = 0,
) -> Table:  # fmt: skip
    """Test whether entities and attributes of a context are tied by binding vectors, by exchanging these.

    A context is `template` for two pairs, E0 A0 E1 A1, behind which `query` asks for one. Z is a token's residual
    stream in all layers. The binding difference of entities is D = mean over contexts of Z(E1) - Z(E0), likewise of
    attributes. Tests: Z taken from another context (factorisability: its entity or attribute is bound instead), the Z
    of both entities or of both attributes exchanged (position independence: answers stay), D added to the first and
    taken from the second (answers swap; both swapped, they stay), and a random vector as long as D in each layer in its
    place. An answer counts where its first token is the likeliest of the attributes in play. Exact for the contexts
    drawn; that D is the binding is what is tested (Feng & Steinhardt 2023, arXiv:2310.17191).

    Args:
        subject: a causal language model, from `pellucid.load`.
        template: one pair, such as "{entity} lives in {attribute}. ".
        query: what comes behind, such as "{entity} lives in".
        entities: names of one token in their place; at least three.
        attributes: likewise, different in their first token.
        contexts: contexts that D is a mean over.
        samples: contexts that are tested, each with both queries.
        seed: of contexts and the random vector.

    Returns:
        Table with the columns test, expected, accuracy, low, high (of a 95 % interval) and margin (log p of the
        expected attribute less that of the best other, in nats). The hypotheses are in the evidence.

    Raises:
        InputError: a template without both slots, too few names, or names of different numbers of tokens.
        CapabilityError: a model that is no causal language model.
    """
    causal(subject, "entity_binding")
    _check(template, query, entities, attributes)
    rng = np.random.default_rng(seed)
    world = World(subject, template, query, {a: first_token(subject, a) for a in attributes})
    drawn = [draw(world, entities, attributes, rng) for _ in range(contexts + samples)]
    learned, tested = drawn[:contexts], drawn[contexts:]
    differences = {kind: torch.stack([one.streams(kind, 1) - one.streams(kind, 0) for one in learned]).mean(0)
                   for kind in ("entity", "attribute")}  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(differences["entity"].shape, generator=generator).to(differences["entity"])
    size = differences["entity"].flatten(1).norm(dim=1) / random.flatten(1).norm(dim=1)
    differences["random"] = random * size[:, None, None]
    asked: dict[str, list[Asked]] = {}
    for number, one in enumerate(tested):
        others = drawn[number:] + drawn[:number]
        new = {kind: another(one, others, kind) for kind in ("entity", "attribute")}
        for name, questions in binding_tests(one, new, differences).items():
            asked.setdefault(name, []).extend(questions)
    margins = answer_margins(world, asked)
    rows = [_row(name, asked[name][0].expected, margins[name]) for name in asked]
    columns = ("test", "expected", "accuracy", "low", "high", "margin")
    return Table(title="Entity binding", columns=columns, rows=tuple(rows), evidence=_hypotheses(margins))


def _check(template: str, query: str, entities: Sequence[str], attributes: Sequence[str]) -> None:
    if template.count("{entity}") != 1 or template.count("{attribute}") != 1 or query.count("{entity}") != 1:
        raise InputError(
            f"The template {template!r} must hold {{entity}} and {{attribute}} once each, and the query {query!r} "
            "{entity} once; add what is missing."
        )
    if min(len(set(entities)), len(set(attributes))) < 3:
        raise InputError(
            f"Two pairs and a new name need three different names, but there are {len(set(entities))} entities and "
            f"{len(set(attributes))} attributes; give more."
        )


def _row(name: str, expected: str, margins: np.ndarray) -> tuple[str | float, ...]:
    low, high = _interval(margins)
    return (name, expected, float((margins > 0).mean()), low, high, float(margins.mean()))


def _interval(margins: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the share of queries that are answered as expected."""
    found = stats.binomtest(int((margins > 0).sum()), len(margins)).proportion_ci()
    return float(found.low), float(found.high)


def _hypotheses(margins: dict[str, np.ndarray]) -> tuple[Evidence, ...]:
    """Return what the tests say of the task, factorisability, position independence and binding vectors."""
    groups = {
        "task": ("as it is",),
        "factorisability": ("entity from another context", "attribute from another context"),
        "position independence": ("entities exchanged", "attributes exchanged"),
        "binding vectors": ("entity vectors swapped", "attribute vectors swapped", "both vectors swapped"),
    }
    found = []
    random = float((margins["random vectors"] > 0).mean())
    for name, tests in groups.items():
        together = np.concatenate([margins[test] for test in tests])
        low, high = _interval(together)
        against = random if name == "binding vectors" else 0.5
        null = f"; a random vector of equal norm swaps {100 * random:.0f} %" if name == "binding vectors" else ""
        found.append(
            Evidence(
                name,
                f"{100 * float((together > 0).mean()):.0f} % of {len(together)} queries are answered as it demands, "
                f"95 % interval {100 * low:.0f} to {100 * high:.0f} %{null}.",
                {"accuracy": float((together > 0).mean()), "low": low, "high": high, "random": against},
                ok=bool(low > max(against, 0.5)),
            )
        )
    return tuple(found)
