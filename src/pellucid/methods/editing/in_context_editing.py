"""IKE: tell the model the new facts, and how to use them, in its context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.facts import Fact, as_facts
from pellucid.core.metadata import method
from pellucid.core.params import Count
from pellucid.core.results import Examples
from pellucid.engine.continuations import need_speaker
from pellucid.engine.edit_cases import EditCase, as_cases
from pellucid.models.subject import Subject

SHARES = {"copy": 1, "update": 3, "retain": 4}


@method(
    rows=("N-ED2",),
    paper="arXiv:2305.12740",
    takes="dataset",
    produces="examples",
    needs=("generate",),
)
def in_context_editing(
    subject: Subject, facts: Fact | Mapping[str, Any] | Sequence[Any], *, demonstrations: Sequence[Any] = (),
    count: Count = 16, template: str = "New fact: {fact}\nQuestion: {prompt} {answer}\n",
    kinds: Sequence[Literal["copy", "update", "retain"]] = ("copy", "update", "retain"),
) -> Examples:  # fmt: skip
    """Write the texts that edit a model by its context alone: the new facts, and demonstrations of their use.

    A demonstration states some other new fact and then a prompt with its answer: the fact's own prompt ("copy"), a
    paraphrase ("update"), or a neighbour whose answer stays ("retain"), in shares of 1 to 3 to 4 (Zheng et al. 2023,
    arXiv:2305.12740). Weights never change. An approximation: whether the model heeds its context is its own ability,
    which `prove_edit` measures.

    Use it with `pellucid.engine.in_context.told(subject, texts)`, which puts the facts and demonstrations nearest to a
    prompt before it.

    Args:
        subject: the model that will be told; a causal language model with a tokenizer.
        facts: what to tell, `Fact(prompt, subject, target)` or a list of them.
        demonstrations: `EditCase` values about other facts, with paraphrases and neighbours.
        count: most demonstrations that are kept.
        template: how a fact, a prompt and its answer are written.
        kinds: which kinds of demonstrations to write.

    Returns:
        Examples: items with `kind`, `text` (a demonstration), or for the new facts `fact`, the statement.

    Raises:
        CapabilityError: no causal language model with a tokenizer.
    """
    need_speaker(subject, "Editing in context")
    by_kind = {kind: _written(as_cases(demonstrations), kind, template) if demonstrations else [] for kind in kinds}
    total = sum(SHARES[kind] for kind in kinds)
    shown = [
        {"kind": kind, "text": text}
        for kind, texts in by_kind.items()
        for text in texts[: max(1, round(count * SHARES[kind] / total)) if count else 0]
    ][:count]
    told = [{"kind": "fact", "text": fact.text + fact.continuation, "template": template} for fact in as_facts(facts)]
    return Examples(
        f"In context: {len(told)} facts, {len(shown)} demonstrations", items=(*shown, *told),
        values=np.array([0.0] * len(shown) + [1.0] * len(told)), unit="1 is a fact that is told, 0 a demonstration",
    )  # fmt: skip


def _written(cases: Sequence[EditCase], kind: str, template: str) -> list[str]:
    """Return the demonstrations of one kind, one round over the cases after the other."""
    rounds: list[list[str]] = []
    for case in cases:
        asked: list[tuple[str, str]] = {
            "copy": [(case.fact.text, case.fact.target)],
            "update": [(prompt, case.fact.target) for prompt in case.paraphrases],
            "retain": [(one, case.fact.true) if isinstance(one, str) else one for one in case.neighbours],
        }[kind]
        statement = case.fact.text + case.fact.continuation
        rounds.append(
            [template.format(fact=statement, prompt=prompt, answer=answer.strip()) for prompt, answer in asked]
        )
    return [own[i] for i in range(max(map(len, rounds), default=0)) for own in rounds if i < len(own)]
