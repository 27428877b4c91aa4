"""Greater than: which heads see the year an event began, which feed-forward layers make later years more likely."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import study
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Explanation, Scores, Table
from pellucid.engine.capture import capture
from pellucid.methods.patching.ablation import ablation
from pellucid.methods.patching.activation_patching import activation_patching
from pellucid.methods.patching.path_patching import path_patching
from pellucid.models.subject import Subject
from pellucid.studies._means import Part, agreement, mean_of, named, standing_out
from pellucid.studies._paths import MOST, SAYS, SIGN
from pellucid.studies._report import report, stopped
from pellucid.studies._trials import (
    ASKED_LEAST,
    Trial,
    ability,
    changed_places,
    difference_of_probabilities,
    need_decoder,
    next_probabilities,
    token_behind,
)
from pellucid.zoo import lexicon

SPANS = (
    "The {event} lasted from the year {century}{year} to the year {century}",
    "The {event} lasted from {century}{year} to {century}",
)
TITLE = "Greater than"
ASKED = "the probability of later years less that of earlier ones"
HALVES = tuple(f"{year:02d}" for year in range(100))
FEWEST = 20


@study(
    rows=("MEC-4",),
    paper="arXiv:2305.00586",
    takes="models",
    produces="explanation",
    needs=("activations", "attention", "weights"),
    cost="pairs*60*layers*(heads+2)*F",
)
def greater_than(
    subject: Subject, *, pairs: Positive = 24, templates: Sequence[str] = SPANS,
    events: Sequence[str] = lexicon.EVENTS, seed: Count = 0,
) -> Explanation:  # fmt: skip
    """Find the heads and feed-forward layers that make a model end an event later than it began.

    Prompts such as "The war lasted from the year 1732 to the year 17"; the target is the probability of two-digit years
    after the first less that of the years up to it. Corrupted prompts begin in the year 01, so that every year is
    later. Parts whose corrupted output costs the target straight at the logits, and then on the way into the strongest
    feed-forward layers, are named. Path patching is in the paper's direction, the sign turned so that positive means
    that a part raises the target. Exact for the prompts drawn, with paired intervals (Hanna et al. 2023,
    arXiv:2305.00586).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model whose tokenizer splits a year into
            two tokens of two digits.
        pairs: prompts, each with its corrupted form.
        templates: sentences with {event}, {century} and {year}, up to the last two digits.
        events: words for {event}.
        seed: of the draw.

    Returns:
        Explanation: probabilities by first year, pictures of heads and layers, a table of what the heads look at; where
        the model cannot do the task, one sentence and no picture.

    Raises:
        InputError: a tokenizer without two-digit years, or a template that does not line up.
        CapabilityError: a model that is no causal language model with a tokenizer.
    """
    need_decoder(subject, "greater_than")
    years, centuries = _years(subject)
    trials = _trials(subject, years, centuries, templates, events, max(pairs, ASKED_LEAST), seed)
    found = ability(subject, trials, "choice", 0.5, "year spans")
    if not found.able:
        return stopped(subject, TITLE, trials[0], ASKED, found)
    trials = trials[:pairs]
    sent = [
        path_patching(subject, one.corrupt, corrupt=one.clean, target=difference_of_probabilities(one))
        for one in trials
    ]
    unit = "difference of probabilities"
    straight = mean_of(sent, "What each part sends straight to the logits", SAYS, flip=True, sign=SIGN, unit=unit)
    heads = straight.values.shape[1] - 1
    parts = standing_out(straight, share=0.1, most=MOST, pairs=pairs)
    layers = [layer for layer, part in parts if part == heads] or [int(straight.values[:, heads].argmax())]
    into = _into(subject, trials, layers[:2], unit)
    removed, restored = _total(subject, trials, unit)
    seeing = standing_out(_heads(removed, heads), share=0.1, most=MOST, pairs=pairs)
    both = ("mean ablation", "activation patching")
    checks = [found.evidence, agreement(removed.values, restored.values, both, len(parts) or 3)]
    first = [_behaviour(subject, trials, years), _looks(subject, trials, seeing, removed)]
    pictures, notes = [*first, straight, into, removed, restored], _notes(parts, seeing, heads)
    return report(subject, TITLE, trials[0], ASKED, notes=notes, results=pictures, evidence=checks)


def _years(subject: Subject) -> tuple[dict[str, int], list[str]]:
    """Return the two-digit years that are tokens behind a century, with their ids, and the centuries."""
    centuries = [str(c) for c in range(11, 21) if token_behind(subject, "the year", f" {c}") is not None]
    found: dict[str, dict[str, int]] = {}
    for century in centuries:
        ids = {half: token_behind(subject, f"the year {century}", half) for half in HALVES}
        found[century] = {half: token for half, token in ids.items() if token is not None}
    best = max(found.values(), key=len, default={})
    usable = [century for century, ids in found.items() if "01" in ids and len(ids) >= FEWEST]
    if not usable:
        raise InputError(
            f"The tokenizer of {subject.name} splits at most {len(best)} of 100 years behind a century into a token "
            f"of two "
            f"digits, but {FEWEST} and the year 01 are needed; use a model whose tokenizer does."
        )
    return {half: found[c][half] for c in usable for half in found[c]}, usable


def _trials(
    subject: Subject, years: dict[str, int], centuries: list[str], templates: Sequence[str], events: Sequence[str],
    pairs: int, seed: int,
) -> list[Trial]:  # fmt: skip
    rng, found = random.Random(seed), list[Trial]()
    while len(found) < pairs:
        form, century, year = len(found) % len(templates), rng.choice(centuries), rng.choice(sorted(years))
        if not "02" <= year <= "97" or token_behind(subject, f"the year {century}", year) != years[year]:
            continue
        words = {"event": rng.choice(list(events)), "century": century}
        try:
            clean, corrupt = (templates[form].format(year=half, **words) for half in (year, "01"))
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"The template {templates[form]!r} cannot be filled ({error}); use {{event}}, {{century}} and {{year}}."
            ) from None
        later = tuple(token for half, token in years.items() if half > year)
        earlier = tuple(token for half, token in years.items() if half <= year)
        trial = Trial(clean, corrupt, later, earlier, form)
        differ = changed_places(subject, trial)
        if len(differ) != 1:
            raise InputError(
                f"The prompt {clean!r} and its corrupted form differ at {len(differ)} tokens, not at the year alone; "
                f"write "
                "{century}{year} without a space between them."
            )
        found.append(Trial(clean, corrupt, later, earlier, form, {"year": differ[0]}))
    return found


def _into(subject: Subject, trials: Sequence[Trial], layers: Sequence[int], unit: str) -> Scores:
    """Return what each part costs through the input of feed-forward layers."""
    found = [
        [path_patching(subject, one.corrupt, corrupt=one.clean, target=difference_of_probabilities(one),
                       receiver=f"blocks.{layer}.mlp") for layer in layers]
        for one in trials
    ]  # fmt: skip
    summed = [
        Scores(values=np.sum([one.values for one in row], axis=0), axes=row[0].axes, labels=row[0].labels)
        for row in found
    ]
    title = f"What reaches the feed-forward layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
    return mean_of(summed, title, SAYS, flip=True, sign=SIGN, unit=unit)


def _total(subject: Subject, trials: Sequence[Trial], unit: str) -> tuple[Scores, Scores]:
    """Return the total effect of every head and feed-forward layer by two methods: removed, and put back."""
    references = [trial.corrupt for trial in trials[:8]]
    removed, restored = list[Scores](), list[Scores]()
    for one in trials:
        asked = difference_of_probabilities(one)
        without = [
            ablation(subject, one.clean, target=asked, references=references, site=site)
            for site in ("attn.z", "mlp.out")
        ]
        removed.append(_joined(without[0].values, without[1].values))
        back = [
            activation_patching(subject, one.clean, corrupt=one.corrupt, target=asked, site=site)
            for site in ("attn.z", "mlp.out")
        ]
        restored.append(_joined(back[0].values.sum(2), back[1].values.sum(1)))
    return (
        mean_of(removed, "What the target loses without each part",
                "Each part gives its mean over corrupted prompts at all positions; paths of every length count.",
                unit=unit),
        mean_of(restored, "What each part brings back into the corrupted prompt",
                "The part's clean output is put in, summed over positions; paths of every length count.", unit=unit),
    )  # fmt: skip


def _joined(heads: np.ndarray, layers: np.ndarray) -> Scores:
    """Return [layer, part] with the feed-forward layer behind the heads."""
    labels = {"part": (*(f"head {i}" for i in range(heads.shape[1])), "mlp")}
    return Scores(values=np.concatenate([heads, layers[:, None]], 1), axes=("layer", "part"), labels=labels)


def _heads(found: Scores, heads: int) -> Scores:
    error = None if found.std_error is None else found.std_error[:, :heads]
    return Scores(values=found.values[:, :heads], axes=("layer", "head"), std_error=error)


def _behaviour(subject: Subject, trials: Sequence[Trial], years: dict[str, int]) -> Scores:
    """Return the probability of each decade by prompt, in the order of the first years: [example, target]."""
    order = sorted(trials, key=lambda one: len(one.wrong))
    rows, names = [], []
    for one in order:
        found = next_probabilities(subject, one.clean)
        rows.append([float(found[[t for h, t in years.items() if h[0] == decade]].sum()) for decade in "0123456789"])
        names.append(subject.encode(one.clean).pieces[one.places["year"]].strip())
    return Scores(
        title="What the model says, by the year that the event began", values=np.array(rows),
        axes=("example", "target"), unit="probability",
        labels={"example": tuple(names), "target": tuple(f"{d}0-{d}9" for d in "0123456789")},
        sign="larger means more likely",
        evidence=(Evidence("what it shows", "A row per prompt, sorted by first year; a model with the idea puts its "
                           "probability to the right of the diagonal."),),
    )  # fmt: skip


def _looks(subject: Subject, trials: Sequence[Trial], parts: Sequence[Part], removed: Scores) -> Table:
    sites = [f"blocks.{layer}.attn.pattern" for layer in range(subject.layers)]
    seen = [capture(subject, trial.clean, sites) for trial in trials]
    rows = []
    for layer, head in parts:
        shares = [float(one[sites[layer]][head, -1, t.places["year"]]) for one, t in zip(seen, trials, strict=True)]
        even = float(np.mean([1 / one[sites[layer]].shape[1] for one in seen]))
        rows.append(
            (
                f"{layer}.{head}",
                round(float(removed.values[layer, head]), 4),
                round(float(np.mean(shares)), 3),
                round(even, 3),
            )
        )
    columns = ("head", "ablation", "last token to the first year", "even attention")
    return Table(
        title="The heads that matter, and whether they look at the first year", columns=columns, rows=tuple(rows)
    )


def _notes(parts: Sequence[Part], seeing: Sequence[Part], heads: int) -> list[str]:
    direct = [f"feed-forward layer {layer}" if part == heads else f"head {layer}.{part}" for layer, part in parts]
    return [
        f"Straight at the logits, later years are raised by: {', '.join(direct) or 'no part alone'}.",
        f"Heads without which the target falls: {named(seeing)}.",
    ]
