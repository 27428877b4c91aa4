"""Recall dissection: where a fact's entity is enriched, what flows on, and where the answer is extracted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.engine.head_weights import unembedding
from pellucid.engine.knockout import around, cut, score_cuts
from pellucid.engine.model_head import outputs_of
from pellucid.engine.question import Question, ask
from pellucid.engine.targets import one_token, resolve
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject

PARTS = (
    "attributes at the entity", "flow from the entity", "flow from the rest", "flow from the last token",
    "extraction by attention", "extraction by feed-forward",
)  # fmt: skip


@method(
    rows=("MET-3",),
    paper="arXiv:2304.14767",
    takes="prompt",
    produces="scores",
    axes=("part", "layer"),
    needs=("attention", "weights"),
    cost="(3*layers+6)*F",
)
def recall_dissection(
    subject: Subject, prompt: PromptLike, *, entity: str | Sequence[int] | None = None,
    attributes: Sequence[int | str] = (), target: TargetLike = None, window: Positive = 1, top: Positive = 50,
) -> Scores:  # fmt: skip
    """Trace the three steps of recalling a fact through the layers: enrichment, propagation, extraction.

    Per layer: the share of the attributes among the `top` tokens that the head would say at the entity's last token;
    the share of the answer's probability that is lost, (p - p') / p, when the last token may not attend to the entity,
    to the rest, or to itself in the layers around; and 1 / rank of the answer in what attention and feed-forward layer
    add at the last token, projected onto the vocabulary (1 is an extraction event). Exact for what each states; the
    attribute rate counts over the attributes given, not over `top` tokens as in the paper (Geva et al. 2023,
    arXiv:2304.14767).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        prompt: text, chat or token ids.
        entity: the text of the fact's subject inside the prompt, or token positions; None means all tokens before the
            last one that are not special.
        attributes: tokens that are true of the entity; none means the answer alone.
        target: the answer, one token; None means what the model predicts.
        window: layers cut together, around each layer.
        top: tokens that the head would say.

    Returns:
        Scores [part, layer].

    Raises:
        InputError: an entity that is not in the prompt before its last token.
        TargetError: an answer of several tokens.
        CapabilityError: a model that is no pre-norm causal language model.
    """
    if subject.kind != "decoder" or subject.head != "causal-lm":
        raise CapabilityError(
            f"Recall is read at the last token of a causal language model, but {subject.name} is a {subject.kind} with "
            f"the head {subject.head!r}; load a decoder."
        )
    asked = target if isinstance(target, Target) or callable(target) else Target(target, measure="prob")
    question = ask(subject, prompt, target=asked, unit="token+special")
    answer = one_token(question.readout).parts[0].ids[0]
    places = _places(question.tokens, entity)
    known = [answer]
    if attributes:
        known = [resolve(subject, question.tokens, Target(one)).parts[0].ids[0] for one in attributes]
    outputs = unembedding(subject)
    sites = [
        f"blocks.{layer}.{part}" for layer in range(subject.layers) for part in ("resid_post", "attn.out", "mlp.out")
    ]
    found = capture(subject, question.tokens, sites)
    streams = torch.stack([found[name][places[-1]] for name in sites[::3]])
    said = outputs_of(subject, streams).topk(min(top, len(outputs)), dim=1).indices
    rate = (said[:, :, None] == torch.tensor(known, device=said.device)).any(1).double().mean(1).cpu().numpy()
    extracted = [_reciprocal_rank(torch.stack([found[n][-1] for n in sites[k::3]]), outputs, answer) for k in (1, 2)]
    whole, flows = _flows(question, places, window)
    return Scores(
        title="Recall dissection", values=np.stack([rate, *flows, *extracted]), axes=("part", "layer"),
        labels={"part": PARTS, "layer": tuple(str(i) for i in range(subject.layers))},
        unit="share", sign="larger means that the step happens in the layer", tokens=question.tokens,
        target=question.readout.description,
    ).with_evidence(_steps(rate, flows, extracted, whole))  # fmt: skip


def _places(tokens: Tokens, entity: Any) -> list[int]:
    last = len(tokens) - 1
    if entity is None:
        found = [p for p in range(last) if not tokens.special[p]]
    elif isinstance(entity, str):
        start = tokens.text.find(entity) if entity and tokens.offsets is not None else -1
        offsets = (tokens.offsets or ()) if start >= 0 else ()
        found = [
            p for p, (a, b) in enumerate(offsets) if a < start + len(entity) and b > start and not tokens.special[p]
        ]
    else:
        found = sorted(int(p) for p in entity)
    if not found or not 0 <= found[0] <= found[-1] < last:
        raise InputError(
            f"The entity {entity!r} is not among the tokens before the last one of {tokens.text or tokens.ids!r}; give "
            f"a part of the prompt, or positions 0 to {last - 1}."
        )
    return found


def _reciprocal_rank(updates: torch.Tensor, outputs: torch.Tensor, answer: int) -> np.ndarray:
    """Return 1 / rank of the answer among the logits that each update [layers, dimension] adds."""
    logits = updates.to(outputs) @ outputs.T
    ranks = (logits >= logits[:, answer, None]).sum(1)  # what says nothing, says it last
    found: np.ndarray = (1 / ranks.double()).cpu().numpy()
    return found


def _flows(question: Question, places: list[int], window: int) -> tuple[float, list[np.ndarray]]:
    """Return the answer's value, and the share of it lost per layer without the edges from three groups of tokens."""
    subject, last = question.subject, len(question.tokens) - 1
    sites = [f"blocks.{layer}.attn.pattern" for layer in range(subject.layers)]
    patterns = capture(subject, question.tokens, sites)
    seen = {site: pattern[:, [last]].amax(0) > 0 for site, pattern in patterns.items()}
    heads = range(len(patterns[sites[0]]))
    groups = [places, [p for p in range(last) if p not in places], [last]]
    sets: list[tuple[Edit, ...]] = [()]
    for keys in groups:
        for layer in range(len(sites)):
            edges = [cut(site, seen[site], [last], keys, heads) for site in around(sites, layer, window)]
            sets.append(tuple(edit for edits in edges for edit in edits))
    scores = score_cuts(subject, question.tokens, question.readout, sets).sum(1)
    lost = (scores[0] - scores[1:]) / (scores[0] or 1.0)
    return float(scores[0]), list(lost.reshape(len(groups), -1))


def _steps(rate: np.ndarray, flows: list[np.ndarray], extracted: list[np.ndarray], whole: float) -> Evidence:
    return Evidence(
        "three steps",
        f"Attributes are richest at the entity behind layer {rate.argmax()} ({rate.max():.2g}); cutting the entity off "
        f"costs most in layer {flows[0].argmax()} ({flows[0].max():.2g}), the rest in layer {flows[1].argmax()} "
        f"({flows[1].max():.2g}); attention extracts the answer in {int((extracted[0] == 1).sum())} layers, the "
        f"feed-forward layer in {int((extracted[1] == 1).sum())}.",
        {"answer": whole, "attributes": float(rate.max()), "entity": float(flows[0].max()),
         "rest": float(flows[1].max())},
    )  # fmt: skip
