"""Causal scrubbing: resample all that a hypothesis says does not matter, and see how much of the answer stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Table
from pellucid.core.targets import Target
from pellucid.core.tokens import Tokens
from pellucid.engine.cone import score_edits
from pellucid.engine.paths import receiver_of, senders_to
from pellucid.engine.readout import Readout
from pellucid.engine.scrubbing import Scrub, sender_of
from pellucid.engine.targets import resolve
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("N-CI12",),
    paper="Chan et al. 2022, alignmentforum.org/posts/JvZhhzycHu2Yd57RN",
    takes="dataset",
    produces="table",
    needs=("activations", "weights"),
    cost="prompts*(2*samples+6)*F",
)
def causal_scrubbing(
    subject: Subject, prompts: Sequence[Any], hypothesis: Mapping[str, Sequence[str]], *,
    targets: Sequence[Any] | None = None, features: Mapping[str, Sequence[Any]] | None = None, samples: Positive = 4,
    seed: Count = 0,
) -> Table:  # fmt: skip
    """Measure how much of the target survives when all that a hypothesis leaves out is taken from random prompts.

    recovered = (scrubbed - random) / (original - random), 1 for a hypothesis that leaves out nothing that matters.
    From the logits down, each part of the hypothesis reads a stream in which the parts it is said to read come from
    prompts that agree on their feature, recursively, and all other parts from one random prompt; "random" takes the
    whole stream from a random prompt. Exact for the prompts drawn; with standard errors over prompts
    (Chan et al. 2022, "Causal scrubbing: a method for rigorously testing interpretability hypotheses").

    Args:
        subject: the model, from `pellucid.load`; one stack, pre-norm, no norms behind the sub-layers.
        prompts: texts, chats or token ids, all of one length.
        hypothesis: part -> the parts it reads, such as {"logits": ["blocks.1.attn.1"], "blocks.1.attn.1.v": ["embed"],
            "blocks.1.attn.1.k": ["blocks.0.attn.0", "embed"]}. Parts are "embed", "blocks.3.mlp" and "blocks.3.attn.1";
            for a head either all of it or its inputs (.q, .k, .v; those left out read nothing that matters). Parts that
            are not keys are taken as they are.
        targets: what is measured on each prompt, as log-probability unless asked otherwise; None means what the model
            predicts.
        features: part -> one value per prompt; prompts of equal value may stand in for each other there. Parts left out
            may only take the prompt itself.
        samples: draws per prompt.
        seed: of the draws.

    Returns:
        Table with a row per prompt: original, scrubbed and random score; what is recovered is in the evidence.

    Raises:
        InputError: prompts of different length, a part that is not there, or one that cannot be read by its reader.
        CapabilityError: a post-norm or encoder-decoder model, or norms behind the sub-layers.
    """
    encoded = _encoded(subject, prompts, targets)
    _check(subject, hypothesis, features or {}, len(encoded))
    asked = [
        t if isinstance(t, Target) or callable(t) else Target(t, measure="log_prob")
        for t in targets or [None] * len(encoded)
    ]
    readouts = [resolve(subject, tokens, target) for tokens, target in zip(encoded, asked, strict=True)]
    scrub = Scrub(subject, encoded, hypothesis, features or {}, np.random.default_rng(seed))
    references = np.repeat(np.arange(len(encoded)), samples)
    scrubbed = scrub.stream("logits", references)
    others = scrub.rng.integers(len(encoded), size=len(references))
    random = [scrub.runs[i].good[scrub.end] for i in others]
    scores = np.zeros((len(encoded), 3))
    for i, (tokens, readout) in enumerate(zip(encoded, readouts, strict=True)):
        here = range(i * samples, (i + 1) * samples)
        found = _scored(subject, tokens, readout, [scrubbed[n] for n in here] + [random[n] for n in here], scrub.end)
        scores[i] = found[0], found[1 : samples + 1].mean(), found[samples + 1 :].mean()
    return Table(
        title="Causal scrubbing",
        columns=("prompt", "target", "original", "scrubbed", "random"),
        rows=tuple(
            (tokens.text or str(list(tokens.ids)), readout.description, *map(float, row))
            for tokens, readout, row in zip(encoded, readouts, scores, strict=True)
        ),
    ).with_evidence(_recovered(scores))


def _encoded(subject: Subject, prompts: Sequence[Any], targets: Sequence[Any] | None) -> list[Tokens]:
    encoded = [subject.encode(prompt) for prompt in prompts]
    if len(encoded) < 2 or len({len(tokens) for tokens in encoded}) > 1:
        raise InputError(
            f"Scrubbing swaps parts between prompts of one length, but lengths are {[len(t) for t in encoded]}; give "
            "two or more prompts with the same number of tokens."
        )
    if targets is not None and len(targets) != len(encoded):
        raise InputError(f"There are {len(targets)} targets for {len(encoded)} prompts; give one each, or none.")
    return encoded


def _check(
    subject: Subject, hypothesis: Mapping[str, Sequence[str]], features: Mapping[str, Sequence[Any]], count: int
) -> None:
    receiver_of(subject, "logits")
    if "attn.out_raw" in subject.need_layout().stacks[""].taps:
        raise CapabilityError(
            f"{subject.need_layout().architecture} puts norms behind its sub-layers, so heads do not add up in the "
            "stream; use path_patching."
        )
    for part, sources in hypothesis.items():
        read = senders_to(subject, receiver_of(subject, part))
        for source in sources:
            if source == "logits" or source.endswith((".q", ".k", ".v")) or sender_of(subject, source) not in read:
                raise InputError(f"The hypothesis says that {part} reads {source}, which does not write before it.")
        if part != "logits" and part.endswith((".q", ".k", ".v")) and part[:-2] in hypothesis:
            raise InputError(f"The hypothesis names both {part} and {part[:-2]}; give all of the head, or its inputs.")
    for part, labels in features.items():
        sender_of(subject, part)
        if len(labels) != count:
            raise InputError(f"The feature of {part} has {len(labels)} values for {count} prompts; give one each.")


def _scored(
    subject: Subject, tokens: Tokens, readout: Readout, streams: Sequence[torch.Tensor], end: str
) -> np.ndarray:
    where = {"position": list(range(len(tokens)))}
    sets = [(), *((Edit(end, "set", stream, where),) for stream in streams)]
    return score_edits(subject, tokens, readout, sets).sum(1)


def _recovered(scores: np.ndarray) -> Evidence:
    original, scrubbed, random = scores.mean(0)
    share = float((scrubbed - random) / (original - random)) if original != random else float("nan")
    error = float((scores[:, 1] - scores[:, 0]).std(ddof=1) / np.sqrt(len(scores)))
    return Evidence(
        "recovered",
        f"The target scores {original:.3g} as it is, {scrubbed:.3g} scrubbed and {random:.3g} on random prompts: "
        f"{100 * share:.0f} % of it is recovered (scrubbed less original: {scrubbed - original:+.2g} +- {error:.1g}).",
        {"recovered": share, "original": float(original), "scrubbed": float(scrubbed), "random": float(random),
         "std_error": error},
    )  # fmt: skip
