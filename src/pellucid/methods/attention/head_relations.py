"""Head relations: how well each attention head alone finds the other end of a labelled relation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Units
from pellucid.engine.head_patterns import patterns
from pellucid.engine.site_gradients import stacked
from pellucid.models.subject import Subject


@method(
    rows=("ATT-5",),
    paper="arXiv:1906.04341",
    takes="labels",
    produces="scores",
    axes=("class", "layer", "head"),
    needs=("attention",),
    cost="examples*F",
)
def head_relations(
    subject: Subject, examples: Sequence[Mapping[str, Any]], *, unit: Unit = "word",
    direction: Literal["to_governor", "to_dependent"] = "to_governor",
) -> Scores:  # fmt: skip
    """Score each head as a classifier of relations: how often the word it looks at most is the right one.

    For a pair (dependent, governor, label) a head is right if, of all other words, the one that the dependent attends
    to most is the governor (or the other way round). Attention to a word of several tokens is summed, attention from
    one averaged; a word itself and special tokens do not count. Exact on the pairs given, with binomial standard
    errors; the evidence gives the accuracy of the best fixed distance, which a head has to beat (Clark et al. 2019,
    arXiv:1906.04341). Decoders see only words to the left, so pairs that point to the right are left out there.

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is used.
        examples: mappings with `prompt` and `relations`, a list of (dependent, governor, label), both ends as indices
            of units; for coreference (mention, antecedent, label).
        unit: what the ends count: "word", "token" or token ranges.
        direction: which end looks: the dependent ("to_governor") or the governor ("to_dependent").

    Returns:
        Scores [class, layer, head], the share of pairs that the head gets right.

    Raises:
        InputError: no pairs, or an end that is not in the prompt.
    """
    hits: dict[str, list[np.ndarray]] = {}
    steps: dict[str, list[int]] = {}
    for number, example in enumerate(examples):
        tokens = subject.encode(example["prompt"])
        units = subject.units(tokens, unit)
        layers = [_between(a, units) for a in patterns(subject, tokens).values()]
        for dependent, governor, label in example["relations"]:
            start, end = (dependent, governor) if direction == "to_governor" else (governor, dependent)
            _check(number, start, end, len(units))
            if subject.kind == "decoder" and end > start:
                continue
            found = [layer[:, start].argmax(-1) == end for layer in layers]
            hits.setdefault(label, []).append(stacked(found))
            steps.setdefault(label, []).append(end - start)
    if not hits:
        raise InputError("The examples hold no relation that this model's attention could follow; give pairs of words.")
    values = np.stack([np.mean(rows, axis=0) for rows in hits.values()])
    counts = np.array([len(rows) for rows in hits.values()])[:, None, None]
    result = Scores(
        title=f"Heads that find relations, looking {direction.replace('_', ' ')}",
        values=values,
        axes=("class", "layer", "head"),
        labels={"class": tuple(hits)},
        unit="accuracy",
        sign="larger means that the head finds the other end more often",
        std_error=np.sqrt(values * (1 - values) / counts),
    )
    return result.with_evidence(_fixed(values, steps))


def _between(pattern: np.ndarray, units: Units) -> np.ndarray:
    """Return attention between different words: [head, word, word]; -1 from a word to itself."""
    to = np.stack([pattern[..., start:end].sum(-1) for start, end in units.spans], -1)
    found = np.stack([to[:, start:end].mean(1) for start, end in units.spans], 1)
    return np.where(np.eye(len(units), dtype=bool), -1.0, found)


def _check(number: int, start: Any, end: Any, count: int) -> None:
    for place in (start, end):
        if not 0 <= place < count:
            raise InputError(f"Example {number} names unit {place}, but its prompt has {count}; use 0 to {count - 1}.")
    if start == end:
        raise InputError(f"Example {number} relates unit {start} to itself; give two different units.")


def _fixed(values: np.ndarray, steps: dict[str, list[int]]) -> Evidence:
    """Return the accuracy of always pointing at the most usual distance, and the best head, for each label."""
    fixed = {label: Counter(found).most_common(1)[0][1] / len(found) for label, found in steps.items()}
    best = dict(zip(steps, values.reshape(len(values), -1).max(1).tolist(), strict=True))
    beaten = [label for label in steps if best[label] > fixed[label]]
    return Evidence(
        "best fixed distance",
        f"The best head beats the best fixed distance on {len(beaten)} of {len(steps)} labels"
        + (f" ({', '.join(beaten)})." if beaten else "."),
        {f"{label}, fixed distance": fixed[label] for label in steps}
        | {f"{label}, best head": best[label] for label in steps},
    )
