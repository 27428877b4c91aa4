"""Arithmetic: which layers carry the operands to the last token, and which compute the result there."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import study
from pellucid.core.params import Count, Positive
from pellucid.core.results import Explanation, Scores
from pellucid.methods.patching.activation_patching import activation_patching
from pellucid.methods.patching.arithmetic_mediation import arithmetic_mediation
from pellucid.models.subject import Subject
from pellucid.studies._means import agreement
from pellucid.studies._places import by_place, mean_by_place, places_around
from pellucid.studies._report import report, stopped
from pellucid.studies._trials import ASKED_LEAST, Trial, ability, need_decoder, token_behind

QUESTIONS = ("The sum of {a} and {b} is", "What is {a} plus {b}? It is", "{a} plus {b} is", "{a} + {b} =")
TITLE = "Arithmetic"
ASKED = "the sum of the clean operands rather than that of the others"
FEWEST = 4
SITES = {"mlp.out": "feed-forward layers", "attn.out": "attention layers"}
IN_PROBABILITIES = (
    "The mean of the clean sum's relative gain and the other sum's relative loss when the layer's value at the "
    "place is that "
    "of the clean prompt, as log(1 + effect), so that no single prompt decides the mean."
)
IN_LOGITS = "The change of the sums' logit difference when the layer's value at the place is that of the clean prompt."


@study(
    rows=("MET-2",),
    paper="arXiv:2305.15054",
    takes="models",
    produces="explanation",
    needs=("activations",),
    cost="pairs*(6*layers*48+60)*F",
)
def arithmetic(
    subject: Subject, *, pairs: Positive = 16, templates: Sequence[str] = QUESTIONS, largest: Positive = 20,
    words: Sequence[str] = (), seed: Count = 0,
) -> Explanation:  # fmt: skip
    """Find the layers that carry operands and those that compute a sum, by mediation between pairs of operands.

    Each prompt is corrupted by other operands with another sum; the value of a layer at a position is taken from the
    clean prompt, and the change of the probabilities of both sums is its indirect effect. In models that compute,
    effects of feed-forward layers at the operands are early and those at the last token late. Patching the logit
    difference is the second method. Only prompts that the model gets right are averaged. Exact for the prompts drawn,
    with paired intervals (Stolfo et al. 2023, arXiv:2305.15054).

    Args:
        subject: the model, from `pellucid.load`; a causal language model.
        pairs: prompts, each with its corrupted form.
        templates: questions with {a} and {b}, up to the sum.
        largest: operands are 0 to this number, and so are sums.
        words: names of the numbers from 0 on, where the model knows words and not digits.
        seed: of the draw.

    Returns:
        Explanation: effects by layer and place for feed-forward layers and attention; where the model cannot do the
        task, one sentence and no picture.

    Raises:
        InputError: fewer than three sums that are one token, or a template that cannot be filled.
        CapabilityError: a model that is no causal language model with a tokenizer.
    """
    need_decoder(subject, "arithmetic")
    numbers = list(words) or [str(n) for n in range(largest + 1)]
    trials = _trials(subject, numbers, templates, max(pairs, ASKED_LEAST), seed)
    found = ability(subject, trials, "greedy", 1 / len({one.right for one in trials}), "sums")
    good = [one for one, right in zip(trials, found.right, strict=True) if right][:pairs]
    if not found.able or len(good) < FEWEST:
        return stopped(subject, TITLE, trials[0], ASKED, found)
    places = [places_around(subject.encode(one.clean), _spans(templates[one.form], one.clean)) for one in good]
    mediated, patched = dict[str, Scores](), dict[str, Scores]()
    for site, name in SITES.items():
        indirect, logits = list[Scores](), list[Scores]()
        for one, at in zip(good, places, strict=True):
            effect = arithmetic_mediation(subject, one.clean, corrupt=one.corrupt, site=site, **one.answer)
            indirect.append(by_place(replace(effect, values=_damped(effect.values), unit="log(1 + effect)"), at))
            found_logits = activation_patching(subject, one.clean, corrupt=one.corrupt, site=site, **one.answer)
            logits.append(by_place(found_logits, at))
        mediated[site] = mean_by_place(indirect, f"What {name} at a place carry, in probabilities", IN_PROBABILITIES)
        patched[site] = mean_by_place(logits, f"What {name} at a place carry, in logits", IN_LOGITS)
    checks = [found.evidence, *(
        agreement(mediated[site].values, patched[site].values, (f"mediation of {name}", "patching of logits"), 3)
        for site, name in SITES.items()
    )]  # fmt: skip
    notes = [_where(patched[site], name) for site, name in SITES.items()]
    results = [*patched.values(), *mediated.values()]
    return report(subject, TITLE, good[0], ASKED, notes=notes, results=results, evidence=checks)


def _trials(subject: Subject, numbers: Sequence[str], templates: Sequence[str], pairs: int, seed: int) -> list[Trial]:
    rng, found = random.Random(seed), list[Trial]()
    for attempt in range(20 * pairs):
        form = attempt % len(templates)
        operands = [_operands(rng, len(numbers)) for _ in range(2)]
        try:
            texts = [templates[form].format(a=numbers[a], b=numbers[b]) for a, b in operands]
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"The template {templates[form]!r} cannot be filled ({error}); use {{a}} and {{b}}."
            ) from None
        first, second = (_answer(subject, text, numbers[a + b]) for text, (a, b) in zip(texts, operands, strict=True))
        if first is None or second is None or sum(operands[0]) == sum(operands[1]):
            continue
        (clean, right), (corrupt, wrong) = first, second
        trial = Trial(clean, corrupt, (right,), (wrong,), form)
        if clean.endswith(" ") == corrupt.endswith(" ") and len(subject.encode(clean)) == len(subject.encode(corrupt)):
            found.append(trial)
        if len(found) == pairs:
            break
    if len({one.right for one in found}) < 3:
        raise InputError(
            f"Fewer than three sums up to {numbers[-1]} are one token for {subject.name} behind the templates; give "
            f"others, or "
            "the numbers' words=."
        )
    return found


def _operands(rng: random.Random, count: int) -> tuple[int, int]:
    first = rng.randrange(count)
    return first, rng.randrange(count - first)


def _answer(subject: Subject, text: str, number: str) -> tuple[str, int] | None:
    """Return the prompt and the token of the sum behind it; a space that is split off goes to the prompt."""
    for prompt, word in ((text, f" {number}"), (f"{text} ", number)):
        token = token_behind(subject, prompt, word)
        if token is not None:
            return prompt, token
    return None


def _spans(template: str, text: str) -> dict[str, tuple[int, int]]:
    """Return the character ranges of the two operands in a filled template."""
    pattern = re.escape(template).replace(r"\{a\}", "(?P<a>.+)").replace(r"\{b\}", "(?P<b>.+)")
    match = re.match(pattern, text)
    assert match is not None
    spans = {"first operand": match.span("a"), "second operand": match.span("b")}
    return dict(sorted(spans.items(), key=lambda item: item[1]))


def _damped(effects: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sign(effects) * np.log1p(np.abs(effects))
    return found


def _where(found: Scores, name: str) -> str:
    layer, place = np.unravel_index(int(found.values.argmax()), found.values.shape)
    last = found.values[:, -1]
    return (
        f"{name.capitalize()} move the answer most in layer {layer} at {found.labels['part'][place]} "
        f"({found.values.max():.3g} logits); at the last token most in layer {int(last.argmax())} ({last.max():.3g})."
    )
