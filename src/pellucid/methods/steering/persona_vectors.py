"""Persona vectors: the direction between replies under instructions that ask for a trait and for its opposite."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Fraction, Positive, SiteName
from pellucid.core.results import Evidence, Learned
from pellucid.engine.directions import contrast, learned_direction
from pellucid.engine.generation import greedy
from pellucid.models.subject import Subject


@method(
    rows=("N-ST6",),
    paper="arXiv:2507.21509",
    takes="labels",
    produces="learned",
    needs=("activations", "generate"),
    cost="prompts*(generated+1)*F",
)
def persona_vectors(
    subject: Subject, questions: Sequence[str], towards: Sequence[str], away: Sequence[str], *,
    judge: Callable[[str, str], float] | None = None, length: Positive = 24, site: SiteName = "resid_post",
    layers: Sequence[int] | None = None, test_share: Fraction = 0.25, seed: int = 0,
) -> Learned:  # fmt: skip
    """Read the direction of a trait from the model's own replies under opposite instructions.

    Every question is asked under every instruction (as the system message, or in front of the question where the model
    has no chat template) and answered greedily. A judge keeps the replies to `towards` that show the trait (more than
    one half) and those to `away` that do not; the vector of a layer is the difference of their means over the reply's
    tokens (Chen et al. 2025, arXiv:2507.21509). `Steering` adds or takes it away, `monitored_tokens` watches it, and
    `monitored_tokens` on training texts flags those that would shift it. Exact for the replies kept.

    Args:
        subject: a causal language model.
        questions: that let the trait show.
        towards: instructions that ask for the trait.
        away: instructions that ask for its opposite.
        judge: a function (question, reply) -> 0 to 1, how much a reply shows the trait; None keeps all replies.
        length: tokens of a reply, at most.
        site: a part of the residual stream.
        layers: which blocks; None means all.
        test_share: share of the replies that only test.
        seed: of the split.

    Returns:
        Learned as of `mean_difference`; the evidence has how many replies were kept.

    Raises:
        CapabilityError: a model that does not generate.
        InputError: no questions or instructions, or a judge that keeps no replies on one side.
    """
    for name, given in (("questions", questions), ("towards", towards), ("away", away)):
        if isinstance(given, str) or len(given) == 0:
            raise InputError(f"persona_vectors needs a list of texts as {name}; give one or more.")
    kept: tuple[list[list[int]], list[list[int]]] = ([], [])
    starts: tuple[list[int], list[int]] = ([], [])
    asked = [len(some) * len(questions) for some in (towards, away)]
    for side, instructions in enumerate((towards, away)):
        for instruction, question in itertools.product(instructions, questions):
            tokens = subject.encode(_prompt(subject, instruction, question))
            reply = greedy(subject, tokens, length)
            text = "" if judge is None else subject.tokenizer.decode(list(reply))
            if judge is None or (float(judge(question, text)) > 0.5) == (side == 0):
                kept[side].append([*tokens.ids, *reply])
                starts[side].append(len(tokens))
    if not kept[0] or not kept[1]:
        raise InputError(
            f"The judge kept {len(kept[0])} of {asked[0]} replies with the trait and {len(kept[1])} of {asked[1]} "
            "without; give clearer instructions, more questions or a milder judge."
        )
    data = contrast(
        subject, *kept, site, layers=layers, position="mean", starts=[*starts[0], *starts[1]], test_share=test_share,
        seed=seed,
    )  # fmt: skip
    found = learned_direction("Persona vector", data, data.positive.mean(1) - data.negative.mean(1), seed=seed)
    return found.with_evidence(_told([len(some) for some in kept], asked, judge is not None))


def _told(kept: list[int], asked: list[int], judged: bool) -> Evidence:
    return Evidence(
        "replies kept",
        f"{kept[0]} of {asked[0]} replies with the trait and {kept[1]} of {asked[1]} without were kept"
        + ("." if judged else "; no judge looked at them, so some may not show what was asked for."),
        {"towards": float(kept[0]), "away": float(kept[1]), "asked": float(sum(asked))},
    )


def _prompt(subject: Subject, instruction: str, question: str) -> Any:
    if getattr(subject.tokenizer, "chat_template", None):
        return [{"role": "system", "content": instruction}, {"role": "user", "content": question}]
    return f"{instruction}\n{question}\n"
