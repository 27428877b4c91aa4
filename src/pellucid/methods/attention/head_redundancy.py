"""Head redundancy: which attention heads do the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.engine.capture import capture
from pellucid.engine.head_patterns import chosen_layers, head_names, patterns, prefix_of
from pellucid.engine.head_similarity import output_similarity, pattern_similarity
from pellucid.engine.question import Question
from pellucid.engine.several import ask_several
from pellucid.models.subject import Subject


@method(
    rows=("ATT-18",),
    paper="doi:10.18653/v1/2021.naacl-main.72",
    takes="prompt",
    produces="scores",
    axes=("head", "other_head"),
    needs=("attention", "activations"),
    cost="3*F",
)
def head_redundancy(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, others: Sequence[Any] = (),
    by: Literal["pattern", "output"] = "pattern",
) -> Scores:  # fmt: skip
    """Compare every two attention heads of the model: 1 where one could stand for the other.

    `pattern` is 1 - the mean over queries of the Jensen-Shannon distance of where both look (0 to 1, symmetric);
    `output` is the linear centred kernel alignment of what both compute over all positions, blind to rotation and
    scale. Exact for what they state; few tokens make outputs look alike by chance, so compare outputs over several
    prompts. Run it on two checkpoints to follow redundancy through training (Bian et al. 2021; Kornblith et al. 2019,
    arXiv:1905.00414).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder's self-attention is compared.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        others: further prompts, whose positions count alike.
        by: what is compared: "pattern" or "output".

    Returns:
        Scores [head, other_head], heads named "layer.head", with each head's nearest other in the evidence.
    """
    asked = ask_several(subject, prompt, others, target=target)
    names = head_names(patterns(asked[0].subject, asked[0].tokens))
    if by == "pattern":
        total = sum(len(question.tokens) for question in asked)
        found = sum(_looks(question) * len(question.tokens) for question in asked) / total
        values = np.asarray(found)
    else:
        values = output_similarity(np.concatenate([_outputs(question) for question in asked], 1))
    result = Scores(
        title=f"Head redundancy by {by}",
        values=values,
        axes=("head", "other_head"),
        labels={"head": names, "other_head": names},
        unit="1 - Jensen-Shannon distance" if by == "pattern" else "CKA",
        sign="1 means that both heads do the same",
        target=asked[0].readout.description,
    )
    return result.with_evidence(_nearest(values, names))


def _looks(question: Question) -> np.ndarray:
    return pattern_similarity(np.concatenate(list(patterns(question.subject, question.tokens).values())))


def _outputs(question: Question) -> np.ndarray:
    """Return what every head computes at every position: [heads, positions, dimension]."""
    subject, prefix = question.subject, prefix_of(question.subject)
    names = [f"{prefix}blocks.{layer}.attn.z" for layer in chosen_layers(subject, None)]
    found = capture(subject, question.tokens, names)
    return np.concatenate([found[name].double().cpu().numpy().transpose(1, 0, 2) for name in names])


def _nearest(values: np.ndarray, names: Sequence[str]) -> Evidence:
    alone = values - 2 * np.eye(len(values))
    first, second = np.unravel_index(alone.argmax(), alone.shape)
    closest = {f"{names[i]} ~ {names[int(alone[i].argmax())]}": float(alone[i].max()) for i in range(len(values))}
    return Evidence(
        "nearest heads",
        f"The two most alike are {names[int(first)]} and {names[int(second)]} ({alone.max():.2f}).",
        closest if len(values) > 1 else {},
    )
