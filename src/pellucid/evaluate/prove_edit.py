"""Prove an edit: every figure that judges a change of a model, before and after, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pellucid.core.metadata import metric
from pellucid.core.params import Count
from pellucid.core.results import Evidence, Explanation, Table
from pellucid.engine.edit_cases import EditCase, itself, nearby, paraphrased
from pellucid.engine.generation import next_token_distribution
from pellucid.engine.own_text import own_texts
from pellucid.engine.targets import name_of
from pellucid.evaluate._edits import Asked, ask_both, checked, neighbourhood, overall, shares
from pellucid.evaluate._fluency import entropies, written
from pellucid.evaluate._moved import moved
from pellucid.evaluate._proof import COLUMNS, consequences, rows_of, said
from pellucid.evaluate.side_effects import OWN_LENGTH, OWN_TEXTS, side_effects
from pellucid.models.subject import Subject

FEW_WORDS = 10
KEPT = ("value", "before", "change", "change_low", "change_high")


@metric(
    rows=("EVE-1", "EVE-2", "EVE-3", "N-ED3"),
    paper="arXiv:2202.05262",
    takes="models",
    produces="explanation",
    better="higher",
    needs=("generate", "activations"),
    cost="pairs*(6*tokens+2*written_tokens+12)*F",
)
def prove_edit(
    subject: Subject, edited: Subject, facts: Sequence[Any], *, neutral: Sequence[Any] | None = None,
    tokens: Count = 20, written_tokens: Count = 60, examples: Count = 6, seed: Count = 0,
) -> Explanation:  # fmt: skip
    """Judge a change of a model on facts: effect, generality, locality, side effects, and what moved inside.

    One table has every figure with its value before the change beside it, the change with a 95 % bootstrap interval,
    and which way is better: efficacy, generality, locality and their score (Meng et al. 2022, arXiv:2202.05262),
    teacher-forced and said freely to the end of the text; what follows from the facts; the entropy of written text;
    KL and perplexity on neutral text. A second table quotes what the model says, and a third result shows behind which
    blocks the residual stream moves. Any pair of models with the same tokens: weights edited, activations steered, or
    fine-tuned elsewhere. Figures that the facts have no questions for are left out and named in the notes. Exact but
    for the intervals; written text is sampled.

    Args:
        subject: the model before, from `pellucid.load`; a causal language model with a tokenizer.
        edited: the model after: a view with weights or activations edited or steered, or another model of its tokens.
        facts: facts or, for all figures, `EditCase` values with paraphrases, neighbours and consequences.
        neutral: text that the change is not about; None takes 16 that the model wrote itself before the change.
        tokens: most tokens of an answer that is said freely; 0 leaves free answers out.
        written_tokens: most tokens of a text whose entropy is measured; 0 leaves it out.
        examples: most prompts of each kind that are quoted.
        seed: of sampling and bootstrap.

    Returns:
        Explanation: the figures, what the model says, and what moved, with the evidence for each part.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
        InputError: no fact, or models with other tokens.
    """
    cases = checked(subject, edited, facts, "The proof of an edit")
    count = len(cases)
    texts = own_texts(subject, OWN_TEXTS, OWN_LENGTH, seed) if neutral is None else list(neutral)
    asked: dict[str, Asked] = {"efficacy": ask_both(subject, edited, itself(cases), count, tokens)}
    if paraphrased(cases):
        asked["generality"] = ask_both(subject, edited, paraphrased(cases), count, tokens)
    if nearby(cases):
        asked["locality"] = neighbourhood(subject, edited, nearby(cases), count, tokens)
    asked |= consequences(subject, edited, cases, tokens)
    checks = _judged(asked, seed)
    if written_tokens:
        prompts = [case.fact.text for case in cases]
        own = [written(one, prompts, written_tokens, 5, seed) for one in (subject, edited)]
        checks["entropy"] = entropies(*own, seed=seed)
    effects = side_effects(subject, edited, texts, seed=seed)
    figures = Table(title="Figures", columns=COLUMNS, rows=rows_of({**checks, "side effects": effects}))
    first = subject.encode(cases[0].fact.text)
    return Explanation(
        title="What the change did",
        tokens=first,
        target=f"{count} {'fact' if count == 1 else 'facts'}, such as: {cases[0].fact.text} {cases[0].fact.target}",
        predictions=tuple((name_of(edited, i), p) for i, p in next_token_distribution(edited, first, 5)),
        results=(figures, *said(asked, examples), moved(subject, edited, _places(cases, texts), whole="neutral")),
        evidence=tuple(_short(one) for one in (*checks.values(), effects)),
        notes=tuple(_notes(cases, asked, checks, neutral is None)),
    )


def _judged(asked: Mapping[str, Asked], seed: int) -> dict[str, Evidence]:
    """Return the evidence of every kind of question that was asked, and of the score where it has all three parts."""
    checks = {"efficacy": shares("efficacy", "The new answer beats the true one", asked["efficacy"], seed, gains=True)}
    for name, sentence in (("generality", "Behind paraphrases the new answer beats the true one"),
                           ("locality", "About neighbours the true answer beats the new one")):  # fmt: skip
        if name in asked:
            checks[name] = shares(name, sentence, asked[name], seed, gains=name == "generality")
    for name in [name for name in asked if name not in ("efficacy", "generality", "locality")]:
        checks[name] = shares(name, f"What follows ({name}) beats what was said before", asked[name], seed, gains=True)
    if len({"generality", "locality"} & set(asked)) == 2:
        parts = [asked[name].measured["prefers"] for name in ("efficacy", "generality", "locality")]
        checks["score"] = overall(parts, seed)
    return checks


def _places(cases: Sequence[EditCase], texts: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the texts on which the inside of both models is compared, those that the cases lack left out."""
    groups: Mapping[str, list[Any]] = {
        "facts": [case.fact.text for case in cases],
        "reworded": [question.prompt for question in paraphrased(cases)],
        "nearby": [question.prompt for question in nearby(cases)],
        "neutral": list(texts),
    }
    return {name: own for name, own in groups.items() if own}


def _short(one: Evidence) -> Evidence:
    """Return a check with its main numbers alone; the table has the others."""
    return replace(one, values={name: one.values[name] for name in KEPT if name in one.values})


def _notes(
    cases: Sequence[EditCase], asked: Mapping[str, Asked], checks: Mapping[str, Evidence], bundled: bool
) -> list[str]:
    lacking = [
        field for field, name in (("paraphrases", "generality"), ("neighbours", "locality")) if name not in asked
    ]
    if not any(case.consequences for case in cases):
        lacking.append("consequences")
    found = [
        "Compare each figure with its value before the change: a model that was never changed does not start at 0."
    ]
    if lacking:
        found.append(
            f"Not judged, because no fact has any: {', '.join(lacking)}; give EditCase(fact, {lacking[0]}=...)."
        )
    if "entropy" in checks and checks["entropy"].values["words_before"] < FEW_WORDS:
        found.append("The model ends its texts after a few words, so their entropy says little.")
    if bundled:
        found.append(
            "Side effects are those on text that the model wrote itself before the change, unless neutral= gives other."
        )
    return found
