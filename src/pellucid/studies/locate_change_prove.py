"""Locate, change, prove: where facts are stored, what each editor makes of them, and what steering does beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pellucid.core.errors import Cancelled, InputError, PellucidError
from pellucid.core.facts import continuation
from pellucid.core.metadata import study
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Explanation, Result, Scores
from pellucid.engine.continuations import following_ids, forced
from pellucid.engine.edit_cases import EditCase, as_cases
from pellucid.engine.edit_layers import MOST_FACTS, PLACES, traced_effects
from pellucid.engine.own_text import own_texts
from pellucid.evaluate.edit_data import counterfact_cases, tiny_lm_cases, tiny_lm_texts
from pellucid.evaluate.prove_edit import prove_edit
from pellucid.methods import find
from pellucid.methods.attribution.integrated_gradients import integrated_gradients
from pellucid.methods.patching.causal_tracing import causal_tracing
from pellucid.models.subject import Subject
from pellucid.studies._editing_story import (
    Edited,
    edited_by,
    fingerprint,
    grid_of,
    one_at_a_time,
    reverted,
    table_of,
    verdict,
)
from pellucid.studies._report import report
from pellucid.studies._steering_story import sentiment
from pellucid.studies._trials import Trial, need_decoder

EDITORS = (
    "fine_tuning_edit", "rome", "memit", "pmet", "alphaedit", "ultraedit", "knowledge_neuron_edit", "mend",
    "knowledge_editor", "slag", "grace", "wise", "serac",
)  # fmt: skip
TITLE = "Locate, change, prove"
OTHERS = 30  # further facts, from which an editor that is trained learns
PROVED = 12  # facts on which the best editor is looked at more closely
NEUTRAL, LENGTH = 24, 32


@study(
    rows=("N-ED3", "EVE-2", "N-ST1"),
    paper="arXiv:2202.05262",
    takes="models",
    produces="explanation",
    needs=("weights", "gradients", "activations", "generate"),
    cost="(pairs+alone)*9*(200*F+150*B)+(96*reviews+4000)*F",
)
def locate_change_prove(
    subject: Subject, *, facts: str | Sequence[Any] | None = None, pairs: Positive = 50,
    editors: Sequence[str] = EDITORS, settings: Mapping[str, Any] | None = None,
    alone: Count = 4, neutral: Sequence[Any] | None = None, reviews: Positive = 24, tokens: Count = 8,
    seed: Count = 20,
) -> Explanation:  # fmt: skip
    """Tell the whole story of a change: trace facts, let every editor write them, judge, revert, steer, explain again.

    Causal tracing finds the layer (Meng et al. 2022, arXiv:2202.05262). Each editor writes all facts at once into a
    view of the model, which is judged by efficacy, generality, locality, fluency and side effects beside the model
    before; each edit of weights is then written into the live model and taken off, and every bit compared. What the
    best one did is proved and explained again by integrated gradients, before and after. A direction of sentiment is
    read, added in doses and taken out (Rimsky et al. 2024, arXiv:2312.06681). Figures are exact for the facts and texts
    drawn, with bootstrap intervals over facts.

    Args:
        subject: the model, from `pellucid.load`; a causal language model with a tokenizer.
        facts: facts to edit, `EditCase` values or `Fact`s, or the name of a file in CounterFact's form; None means
            those of the small world of `zoo:tiny-lm`, each with another answer.
        pairs: how many facts are edited, each a pair of an old and a new answer; those left train editors that learn.
        editors: methods that return edits of weights, a memory or a trained editor.
        settings: parameters by the name of an editor.
        alone: how many of the facts are also edited one at a time, as editors for single facts are meant.
        neutral: texts that the facts are not about; None means text of the small world, or for facts that are given
            text that the model writes itself.
        reviews: reviews of praise, and of blame, from which the direction of sentiment is read.
        tokens: most tokens of an answer that is said freely.
        seed: of the draws.

    Returns:
        Explanation: where facts are stored, the table of editors, what the best one changed, and what steering does.

    Raises:
        InputError: no such editor, settings for none of them, or no facts.
        CapabilityError: a model that is no causal language model with a tokenizer.
    """
    need_decoder(subject, "locate_change_prove")
    chosen = _settings(editors, settings)
    cases, others = _cases(facts, pairs, seed)
    texts = _texts(subject, neutral, facts is None, seed)
    located, where = _located(subject, cases, seed)
    models, edited, checks, notes = _changed(subject, cases, others, texts, chosen, tokens, seed)
    if alone:
        names = [one.name for one in models]
        edited.append(one_at_a_time(names, subject, cases[:alone], texts, chosen, seed))
    proved, said = _proved(subject, models, cases, texts, tokens, seed)
    try:
        steered, more, told = sentiment(subject, texts, reviews, seed)
    except Cancelled:
        raise
    except PellucidError as error:
        steered, more, told = [], [], [f"No direction of sentiment was read: {error}"]
    trial = Trial(cases[0].fact.text, "", (), ())
    return report(
        subject, TITLE, trial, f"{len(cases)} facts and their new answers, and the sentiment of reviews",
        notes=[where, *notes, *said, *told], results=[*located, *edited, *proved, *steered],
        evidence=[_known(subject, cases), *checks, *more],
    )  # fmt: skip


def _settings(editors: Sequence[str], settings: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Return the parameters of each editor, in order."""
    given = dict(settings or {})
    found = {find(name).name: given.pop(name, {}) for name in editors}
    if given or not found:
        raise InputError(
            f"Settings were given for {', '.join(given) or 'nothing'}, but the editors are "
            f"{', '.join(found) or 'none'}; name one or more editors, and settings of these."
        )
    return found


def _cases(facts: Any, pairs: int, seed: int) -> tuple[list[EditCase], list[EditCase]]:
    """Return the facts that are edited, and others."""
    if facts is None:
        every = tiny_lm_cases(pairs + OTHERS, seed=seed)
    else:
        every = counterfact_cases(facts, count=pairs + OTHERS, seed=seed) if isinstance(facts, str) else as_cases(facts)
    if not every:
        raise InputError("No fact was found to edit; give one or more.")
    return list(every[:pairs]), list(every[pairs:])


def _texts(subject: Subject, neutral: Sequence[Any] | None, bundled: bool, seed: int) -> list[Any]:
    if neutral is not None:
        return list(neutral)
    return [*(tiny_lm_texts(seed=seed) if bundled else own_texts(subject, NEUTRAL, LENGTH, seed))]


def _known(subject: Subject, cases: Sequence[EditCase]) -> Evidence:
    """Say of how many facts the model's likeliest answer is the true one, before any change."""
    asked = [following_ids(subject, one.fact.text, one.fact.true) for one in cases if one.fact.true]
    if not asked:
        return Evidence(
            "what the model knew", "No fact names its true answer, so it is not asked whether it was known."
        )
    share = sum(one.exact for one in forced(subject, asked)) / len(asked)
    summary = f"Before any change the model says the true answer of {100 * share:.0f} % of the {len(asked)} facts."
    return Evidence("what the model knew", summary, {"known": share, "facts": float(len(asked))}, ok=share > 0.5)


def _located(subject: Subject, cases: Sequence[EditCase], seed: int) -> tuple[list[Result], str]:
    """Return where feed-forward outputs bring the facts back, over facts and for the first one token by token."""
    facts = [case.fact for case in cases]
    effects = traced_effects(subject, facts, seed=seed)
    place, layer = divmod(int(effects.argmax()), effects.shape[1])
    count, names = min(len(facts), MOST_FACTS), {"subject": "subject's last token", "last": "prompt's last token"}
    where = (
        f"Located: over {count} facts, feed-forward outputs around layer {layer} at the {names[PLACES[place]]} bring "
        f"back the most of the model's answer, {effects.max():.2g} of probability; at the {names[PLACES[1 - place]]} "
        f"at most {effects[1 - place].max():.2g}."
    )
    mean = Scores(
        title="Feed-forward layers: what clean outputs bring back under noise", values=effects.T,
        axes=("layer", "part"), labels={"part": tuple(f"{one} token" for one in PLACES)}, unit="probability",
        sign="positive restores the model's own answer", target=f"the model's answer, a mean over {count} facts",
    )  # fmt: skip
    first = facts[0]
    start, end = first.span
    offsets = subject.encode(first.text).offsets or ()
    noisy = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    traced = causal_tracing(subject, first.text, corrupted=noisy or None, samples=4, seed=seed)
    return [mean, replace(traced, title=f"Residual stream, one fact token by token: {first.text}")], where


def _changed(
    subject: Subject, cases: Sequence[EditCase], others: Sequence[EditCase], texts: Sequence[Any],
    editors: Mapping[str, Mapping[str, Any]], tokens: int, seed: int,
) -> tuple[list[Edited], list[Result], list[Evidence], list[str]]:  # fmt: skip
    """Return the models that the editors made, their table, their checks, and what was refused or did not come off."""
    before, models, notes = fingerprint(subject.model), list[Edited](), list[str]()
    for name, own in editors.items():
        try:
            models.append(edited_by(name, subject, cases, others, texts, own, tokens, seed))
        except Cancelled:
            raise
        except PellucidError as error:
            notes.append(f"Left out: {name}. {error}")
    if not models:
        raise InputError(f"None of the editors could write these facts. {notes[0]}")
    came_back = {one.name: reverted(subject, one, before) for one in models}
    lost = [name for name, back in came_back.items() if not back]
    best = max(models, key=lambda one: one.score)
    notes += [
        f"Changed: by the harmonic mean of its shares {best.name} did best ({best.score:.2g}).",
        f"Reverted: the edits of {', '.join(lost)} left bits behind." if lost else
        f"Reverted: all {len(models)} edits came off, every bit of every weight as before.",
    ]  # fmt: skip
    back = Evidence("reverted bit for bit", notes[-1], {"edits": float(len(models)), "lost": float(len(lost))},
                    ok=not lost)  # fmt: skip
    results: list[Result] = [table_of(subject, models, came_back), grid_of(models)]
    return models, results, [back, *map(verdict, models)], notes


def _proved(
    subject: Subject, models: Sequence[Edited], cases: Sequence[EditCase], texts: Sequence[Any], tokens: int, seed: int
) -> tuple[list[Result], list[str]]:
    """Return what the best edit of weights changed, and one fact explained before and after it."""
    best = max([one for one in models if one.edit is not None] or models, key=lambda one: one.score)
    found = prove_edit(
        subject, best.subject, cases[:PROVED], neutral=texts, tokens=tokens, written_tokens=0, examples=3, seed=seed
    )
    asked = [following_ids(subject, case.fact.text, case.fact.target) for case in cases]
    says = [one.exact for one in forced(best.subject, asked)]
    fact = cases[says.index(1.0) if 1.0 in says else 0].fact
    rival = continuation(fact.text, fact.true) if fact.true else None
    both = [integrated_gradients(one, fact.text, target=fact.continuation, contrast=rival)
            for one in (subject, best.subject)]  # fmt: skip
    sums = [float(one.values.sum()) for one in both]
    why = f"why{fact.continuation}{f' rather than{rival}' if rival else ''}"
    note = (
        f"Explained again, {best.name}: the tokens of {fact.text!r} add up to {sums[0]:+.3g} for{fact.continuation}"
        f"{f' over{rival}' if rival else ''} before the edit and to {sums[1]:+.3g} after it."
    )
    pictures = [replace(one, title=f"{when}: {why}") for when, one in
                zip(("Before the edit", "After the edit"), both, strict=True)]  # fmt: skip
    return [*(replace(one, title=f"{best.name}: {one.title}") for one in found.results[1:]), *pictures], [note]
