"""Fact recall: where a fact is stored and where it is read, by noise, by exchange, and by cutting attention."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from scipy import stats

from pellucid.core.errors import InputError
from pellucid.core.metadata import study
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Explanation, Scores
from pellucid.methods.patching.ablation import ablation
from pellucid.methods.patching.activation_patching import activation_patching
from pellucid.methods.patching.attention_knockout import attention_knockout
from pellucid.methods.patching.causal_tracing import causal_tracing
from pellucid.methods.patching.recall_dissection import recall_dissection
from pellucid.models.subject import Subject
from pellucid.studies._means import agreement, mean_of
from pellucid.studies._places import by_place, mean_by_place, places_around
from pellucid.studies._report import probability, report, stopped
from pellucid.studies._trials import ASKED_LEAST, Trial, ability, need_decoder, token_behind
from pellucid.zoo import lexicon

STATEMENTS = ("The capital of {entity} is", "The capital city of {entity} is called")
CAPITALS = tuple((land, capital, language, continent) for land, capital, continent, language in lexicon.COUNTRIES)
TITLE = "Where a fact is stored and read"
ASKED = "the fact's answer"
FEWEST = 4
WINDOWS = {"resid_post": "Residual stream", "mlp.out": "Feed-forward layers", "attn.out": "Attention layers"}


@study(
    rows=("MET-1", "MET-3", "TXB-5"),
    paper="arXiv:2304.14767",
    takes="models",
    produces="explanation",
    needs=("activations", "attention", "weights"),
    cost="pairs*((3*samples+2)*layers*40+100)*F",
)
def fact_recall(
    subject: Subject, *, pairs: Positive = 12, templates: Sequence[str] = STATEMENTS,
    facts: Sequence[Sequence[str]] = CAPITALS, samples: Positive = 2, seed: Count = 0,
) -> Explanation:  # fmt: skip
    """Trace where a model stores a fact and where it reads it, over many facts that it knows.

    Causal tracing adds noise to the entity and puts single clean values back (residual stream; feed-forward and
    attention layers in windows of a fifth of the layers); activation patching exchanges the entity for another one
    and needs no noise; attention knockout cuts the entity, or all else, off from the last token; recall dissection
    reads how rich the entity is in attributes and where the answer is extracted. Places are averaged by what stands
    there. Exact for the facts and noise drawn, with paired intervals (Meng et al. 2022, arXiv:2202.05262; Geva et al.
    2023, arXiv:2304.14767).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        pairs: facts, each with another entity of as many tokens.
        templates: statements with {entity}, up to the answer, which follows a space.
        facts: (entity, answer, further words that are true of the entity ...) each.
        samples: draws of noise per fact.
        seed: of the draws.

    Returns:
        Explanation: layer by place for each method, and the three steps of recall by layer; where the model does not
        know the facts, one sentence and no picture.

    Raises:
        InputError: fewer than four facts whose answer is one token.
        CapabilityError: a model that is no causal language model with a tokenizer.
    """
    need_decoder(subject, "fact_recall")
    trials, known = _trials(subject, templates, facts, max(pairs, ASKED_LEAST), seed)
    found = ability(subject, trials, "greedy", 1 / len({one.right for one in trials}), "facts")
    good = [number for number, right in enumerate(found.right) if right][:pairs]
    if not found.able or len(good) < FEWEST:
        return stopped(subject, TITLE, trials[0], ASKED, found)
    trials, known = [trials[i] for i in good], [known[i] for i in good]
    window = max(1, round(subject.layers / 5))
    traced = {site: _traced(subject, trials, site, window, samples, seed) for site in WINDOWS}
    held = _traced(subject, trials, "resid_post", 1, samples, seed, severed=True)
    removed = _removed(subject, trials)
    patched = _patched(subject, trials)
    cut = _cut(subject, trials, window)
    steps = mean_of(
        [recall_dissection(subject, one.clean, entity=[*range(*_entity(subject, one))], attributes=words, window=window,
                           target=one.right[0]) for one, words in zip(trials, known, strict=True)],
        "The three steps of recall, layer by layer",
        "Enrichment of the entity with what is true of it, flow to the last token, and extraction of the answer there.",
    )  # fmt: skip
    checks = [
        found.evidence,
        agreement(traced["resid_post"].values, patched.values, ("causal tracing", "activation patching"), 6),
        _reading(traced["attn.out"], cut),
    ]
    return report(
        subject, TITLE, trials[0], ASKED, notes=_notes(traced, held, cut, removed),
        results=[*traced.values(), held, patched, cut, removed, steps],
        evidence=checks,
    )  # fmt: skip


def _trials(
    subject: Subject, templates: Sequence[str], facts: Sequence[Sequence[str]], pairs: int, seed: int
) -> tuple[list[Trial], list[list[int]]]:
    """Return facts with another entity each, and the ids of what is true of the entity."""
    rng, found, known = random.Random(seed), list[Trial](), list[list[int]]()
    order = [(fact, form) for form in range(len(templates)) for fact in facts]
    rng.shuffle(order)
    for (entity, answer, *more), form in order:
        try:
            clean = templates[form].format(entity=entity)
            others = [
                (templates[form].format(entity=other[0]), other[1]) for other in rng.sample(list(facts), len(facts))
            ]
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(f"The template {templates[form]!r} cannot be filled ({error}); use {{entity}}.") from None
        token, length = token_behind(subject, clean, f" {answer}"), len(subject.encode(clean))
        if token is None:
            continue
        for corrupt, instead in others:
            wrong = token_behind(subject, corrupt, f" {instead}")
            if wrong is not None and wrong != token and len(subject.encode(corrupt)) == length:
                start = clean.index(entity, templates[form].index("{entity}"))
                found.append(
                    Trial(clean, corrupt, (token,), (wrong,), form, {"start": start, "end": start + len(entity)})
                )
                words = [token_behind(subject, clean, f" {word}") for word in (answer, *more)]
                known.append([word for word in words if word is not None])
                break
        if len(found) == pairs:
            break
    if len(found) < FEWEST:
        raise InputError(
            f"Only {len(found)} of {len(facts)} facts have an answer of one token for {subject.name} and an entity "
            f"to exchange, "
            f"but {FEWEST} are needed; give other facts."
        )
    return found, known


def _entity(subject: Subject, trial: Trial) -> tuple[int, int]:
    """Return the token range of the entity."""
    offsets = subject.encode(trial.clean).offsets or ()
    start, end = trial.places["start"], trial.places["end"]
    own = [p for p, (a, b) in enumerate(offsets) if a < end and b > start]
    return own[0], own[-1] + 1


def _named(subject: Subject, trial: Trial) -> dict[str, list[int]]:
    return places_around(subject.encode(trial.clean), {"entity": (trial.places["start"], trial.places["end"])})


def _traced(
    subject: Subject, trials: Sequence[Trial], site: str, window: int, samples: int, seed: int, severed: bool = False
) -> Scores:
    wide = 1 if site == "resid_post" else window
    severing: Any = "mlp.out" if severed else "none"
    found = [
        by_place(
            causal_tracing(subject, one.clean, corrupted=[*range(*_entity(subject, one))], target=probability(one),
                           site=site, window=wide, samples=samples, seed=seed, severed=severing),
            _named(subject, one),
        )
        for one in trials
    ]  # fmt: skip
    held = ", later feed-forward layers held noisy" if severed else ""
    says = "The probability of the answer that returns when a clean value is put back into the run with a noisy entity"
    more = ", while the feed-forward layers behind it there keep their noisy values" if severed else ""
    more += f", in windows of {wide} layers" if wide > 1 else ""
    return mean_by_place(
        found, f"{WINDOWS[site]}: what single clean values bring back under noise{held}", says + more + "."
    )


def _removed(subject: Subject, trials: Sequence[Trial]) -> Scores:
    """Return what the answer loses without each feed-forward layer: [layer]."""
    references = [one.corrupt for one in trials]
    found = [
        ablation(subject, one.clean, target=probability(one), site="mlp.out", references=references) for one in trials
    ]
    return mean_of(found, "What the answer loses without each feed-forward layer",
                   "The layer gives its mean over statements about other entities, at all positions.")  # fmt: skip


def _patched(subject: Subject, trials: Sequence[Trial]) -> Scores:
    found = [
        by_place(activation_patching(subject, one.clean, corrupt=one.corrupt, target=probability(one),
                                     site="resid_post"), _named(subject, one))
        for one in trials
    ]  # fmt: skip
    says = "As above, with another entity of the same kind in place of noise."
    return mean_by_place(found, "Residual stream: what single clean values bring back with another entity", says)


def _cut(subject: Subject, trials: Sequence[Trial], window: int) -> Scores:
    """Return what the answer loses without the edges from the entity, and from all other tokens, to the last token."""
    found = []
    for one in trials:
        start, end = _entity(subject, one)
        last = len(subject.encode(one.clean)) - 1
        spans = [(0, start)] * (start > 0) + [(start, end)] + [(end, last)] * (end < last)
        names = ["before the entity"] * (start > 0) + ["entity"] + ["behind the entity"] * (end < last)
        cut = attention_knockout(subject, one.clean, target=probability(one), unit=spans, window=window, relative=True)
        found.append(
            Scores(
                values=cut.values, axes=("layer", "part"), labels={"part": tuple(names)}, unit=cut.unit, sign=cut.sign
            )
        )
    common = [one for one in found if one.labels["part"] == found[0].labels["part"]]
    return mean_of(common, "What the answer loses when the last token may not attend there",
                   f"The share of the answer's probability that is lost, in windows of {window} layers.")  # fmt: skip


def _reading(traced: Scores, cut: Scores) -> Evidence:
    """Compare the layers where the answer is read by two methods: attention put back, and attention cut."""
    first, second = traced.values[:, -1], cut.values[:, cut.labels["part"].index("entity")]
    found: Any = stats.spearmanr(first, second)
    best = int(first.argmax()), int(second.argmax())
    good = bool(found.statistic > 0 and abs(best[0] - best[1]) <= max(1, len(first) // 6))
    return Evidence(
        "tracing and knockout agree on where the fact is read"
        if good
        else "tracing and knockout differ on where it is read",
        f"Putting attention's output back at the last token helps most in layer {best[0]}; cutting the entity off "
        f"hurts most in "
        f"layer {best[1]}; over the {len(first)} layers their ranks correlate with {found.statistic:.2f}.",
        {"traced": float(best[0]), "cut": float(best[1]), "rank_correlation": float(found.statistic)},
        ok=good,
    )


def _notes(traced: dict[str, Scores], held: Scores, cut: Scores, removed: Scores) -> list[str]:
    stream, names = traced["resid_post"].values, traced["resid_post"].labels["part"]
    at = names.index("entity's last token")
    handed = next((layer for layer in range(len(stream)) if stream[layer, -1] > stream[layer, at]), len(stream) - 1)
    place = names[int(stream[0].argmax())]
    alone = held.values[:, -1]
    enough = next(layer for layer in range(len(alone)) if alone[layer] >= 0.9 * stream[layer, -1])
    lost, late = cut.values[:, cut.labels["part"].index("entity")], traced["attn.out"].values[:, -1]
    return [
        f"Behind layer 0 the answer depends most on: {place}; from layer {handed} on the prompt's last token carries "
        "more of it than the entity's.",
        f"Read: attention fetches it in layer {int(late.argmax())} by tracing ({late.max():.2g} of probability comes "
        f"back) and in layer {int(lost.argmax())} by cutting the entity off ({100 * lost.max():.0f} % of the "
        "probability is lost).",
        "Looked up, by tracing: with the feed-forward layers behind it held at their noisy values, a clean stream at "
        f"the last token brings back {alone[0]:.2g} of {stream[0, -1]:.2g} behind layer 0; from layer {enough} on it "
        f"is {alone[enough]:.2g} of {stream[enough, -1]:.2g} or more.",
        f"Looked up, by ablation: the answer loses most without feed-forward layer {int(removed.values.argmax())} "
        f"({removed.values.max():.2g} of probability).",
    ]
