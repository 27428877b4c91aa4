"""Arithmetic mediation: which places carry a result, by patching in the run of a question with another result."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from pellucid.core.axes import parse_site
from pellucid.core.errors import InputError, TargetError
from pellucid.core.metadata import method
from pellucid.core.pairs import Pair
from pellucid.core.params import PromptLike, SiteName, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.engine.capture import capture, expand, part_name
from pellucid.engine.cone import score_edits
from pellucid.engine.targets import one_token, resolve
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("MET-2",),
    paper="arXiv:2305.15054",
    takes="pair",
    produces="scores",
    axes=("layer", "position"),
    needs=("activations",),
    cost="(2*layers*positions+10)*F",
)
def arithmetic_mediation(
    subject: Subject, clean: PromptLike | Pair, *, corrupt: PromptLike | None = None, target: TargetLike = None,
    contrast: int | str | None = None, site: SiteName = "mlp.out",
) -> Scores:  # fmt: skip
    """Score each layer and position by how far its value from another question moves the probabilities of two results.

    IE[l, p] = 1/2 [(P*(r') - P(r')) / P(r') + (P(r) - P*(r)) / P*(r)], where P is on the corrupted prompt (result r,
    `contrast`), and P* on the same with the value at layer l and position p from the clean one (result r', `target`);
    positive means that the place carries the result. Exact. The evidence gives the importance of the later half of the
    layers at the last token, as sums of log(1 + IE) over all places with a positive effect; mlp.out compared with
    attn.out shows which of them computes (Stolfo et al. 2023, arXiv:2305.15054).

    Args:
        subject: the model, from `pellucid.load`.
        clean: the question whose values are taken, or a `Pair` of both, position by position.
        corrupt: the question that is patched; as many tokens as `clean`, such as with other operands.
        target: the result of `clean`, one token; None means what the model predicts there.
        contrast: the result of `corrupt`, one token; None means what the model predicts there.
        site: the part of a block with positions, in every layer.

    Returns:
        Scores [layer, position], in relative change of probability.

    Raises:
        InputError: questions of different length, or a site without positions.
        TargetError: a result of several tokens.
        SiteError: a site that the model lacks.
    """
    pair = clean if isinstance(clean, Pair) else Pair(clean, corrupt)
    good, bad = subject.encode(pair.clean), subject.encode(pair.corrupt)
    _check(len(good), len(bad), pair, target)
    readouts = [
        one_token(resolve(subject, tokens, Target(what, measure="prob")))
        for tokens, what in ((good, target), (bad, contrast))
    ]
    names = expand(subject, part_name(subject, site))
    if parse_site(names[0]).axes[0] != "position":
        raise InputError(f"The site {site!r} has no positions; use mlp.out, attn.out, resid_pre or the like.")
    values = capture(subject, good, names)
    places = itertools.product(names, range(len(bad)))
    sets = [(), *((Edit(name, "patch_from", values[name], {"position": p}),) for name, p in places)]
    there, here = (score_edits(subject, bad, readout, sets)[:, 0] for readout in readouts)
    tiny = np.finfo(np.float64).tiny
    gained = (there[1:] - there[0]) / np.maximum(there[0], tiny)
    lost = (here[0] - here[1:]) / np.maximum(here[1:], tiny)
    effects = (0.5 * (gained + lost)).reshape(len(names), len(bad))
    return Scores(
        title=f"Arithmetic mediation at {site}",
        values=effects,
        axes=("layer", "position"),
        labels={"layer": tuple(str(i) for i in range(len(names)))},
        unit="relative change of probability",
        sign="positive moves the answer from the corrupted to the clean result",
        tokens=bad,
        target=f"{readouts[0].description} instead of {readouts[1].description}",
    ).with_evidence(_late(effects, float(there[0]), float(here[0])))


def _check(clean: int, corrupt: int, pair: Pair, target: Any) -> None:
    if clean != corrupt or pair.alignment is not None:
        raise InputError(
            f"Values go position by position, but clean has {clean} tokens and corrupt {corrupt}, or a Pair aligns "
            "them otherwise; rephrase one so that tokens line up."
        )
    if isinstance(target, Target) or callable(target):
        raise TargetError(
            "arithmetic_mediation compares probabilities of two results; give each as one token or class."
        )


def _late(effects: np.ndarray, there: float, here: float) -> Evidence:
    sizes = np.log1p(np.maximum(effects, 0))
    late = float(sizes[len(effects) // 2 :, -1].sum() / max(float(sizes.sum()), 1e-300))
    return Evidence(
        "late layers at the last token",
        f"The later half of the layers carries {100 * late:.0f} % of the effect at the last token; unpatched, the "
        f"clean result has a probability of {there:.3g} and the corrupted one of {here:.3g}.",
        {"late": late, "clean_result": there, "corrupt_result": here},
        ok=bool(here > there),
    )
