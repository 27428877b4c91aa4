"""Patchscopes: a hidden state put into another prompt, where the model itself says what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from pellucid.core.errors import CapabilityError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import Measure, Positive, PromptLike, TargetLike
from pellucid.core.results import Evidence, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.cone import score_edits
from pellucid.engine.edited_generation import greedy_under
from pellucid.engine.lens import chosen_positions, layer_grid, measured_as, output_name, stream_sites
from pellucid.engine.targets import resolve
from pellucid.engine.variants import row, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.subject import Subject

# The target prompts of the paper; the last token is the one that is replaced.
PUBLISHED = {
    "identity": "cat->cat; 1135->1135; hello->hello; ?",
    "description": "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean "
    "multinational major appliance and consumer electronics corporation, x",
}


@method(
    rows=("MEL-5",),
    paper="arXiv:2401.06102",
    takes="prompt",
    produces="scores",
    axes=("layer", "position"),
    needs=("activations", "generate"),
    cost="(layers*positions*(length+1)+positions+2)*targets*F",
)
def patchscopes(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    configuration: Literal["identity", "description", "next_token"] = "identity", into: PromptLike | None = None,
    place: int | None = None, target_layer: int | None = None, positions: int | Sequence[int] = -1,
    length: Positive = 1, measure: Measure = "log_prob",
) -> Scores:  # fmt: skip
    """Put each layer's hidden state of a prompt into another prompt, and read what the model goes on to say.

    The output of block l at a position of `prompt` replaces the output of block l* at one token of the target prompt;
    R[l, p] is the measure of the target behind the target prompt, `words` the greedy text there. Exact for what it
    states. Published target prompts: "identity" (copy the token), "description" (say what it is); "next_token" is the
    prompt itself up to the position, where l* = l must give the model's own next token, and l* = the last layer is the
    logit lens (Ghandeharioun et al. 2024, arXiv:2401.06102). Multi-hop repair is a `into` with the second hop.

    Args:
        subject: a decoder, from `pellucid.load`.
        prompt: text, chat or token ids whose hidden states are read.
        target: the token or continuation whose score is shown; None means what the model predicts behind `prompt`.
        contrast: the alternative to compare with.
        configuration: one of the published target prompts.
        into: a target prompt of your own in its place.
        place: the token of the target prompt that is replaced; None means its last.
        target_layer: l*, negative from the last; None means the layer it came from.
        positions: of `prompt`, negative from the end.
        length: tokens of the greedy text.
        measure: "log_prob", "prob", "logit" or "entropy", unless the target names its own.

    Returns:
        Scores [layer, position]; evidence says how often the first word is the model's own prediction.

    Raises:
        CapabilityError: a model that is no decoder, or a published prompt without a tokenizer.
        InputError: a position, place or layer outside.
    """
    source = subject.encode(prompt)
    readout = measured_as(resolve(subject, source, target, contrast), target, measure)
    _check_decoder(subject)
    names = stream_sites(subject, "resid_post")
    chosen = chosen_positions(positions, len(source))
    with torch.no_grad():
        output = forward(subject, [row(subject, source, whole(source))], capture=names)
    values, said = np.zeros((len(names), len(chosen))), dict[tuple[int, int], str]()
    first = np.zeros(values.shape, dtype=np.int64)
    for column, position in enumerate(chosen):
        text = _target_prompt(subject, source, position, configuration, into)
        if isinstance(target, str):  # how a text is cut into tokens depends on what it follows
            readout = measured_as(resolve(subject, text, target, contrast), target, measure)
        edits = _patches(names, [output.row(name, 0)[position] for name in names], target_layer, place, len(text))
        values[:, column] = score_edits(subject, text, readout, edits).sum(1)
        for layer, ids in enumerate(greedy_under(subject, text, edits, length)):
            first[layer, column] = ids[0]
            said[layer, column] = "".join(output_name(subject, token) for token in ids)
    title = f"Patchscopes, {configuration if into is None else 'own target prompt'}"
    words = [said[cell] for cell in np.ndindex(values.shape)]
    own = output.logits[0, chosen].argmax(-1).cpu().numpy()
    return layer_grid(title, values, words, source, chosen, readout, _agreement(first == own))


def _check_decoder(subject: Subject) -> None:
    if subject.kind != "decoder":
        raise CapabilityError(
            f"patchscopes continues a prompt, but {subject.name} is an {subject.kind}; load a decoder."
        )


def _patches(
    names: list[str], states: list[torch.Tensor], target_layer: int | None, place: int | None, length: int
) -> list[tuple[Edit, ...]]:
    """Return one edit per source layer, which puts its state into the target prompt."""
    (at,) = chosen_positions(length - 1 if place is None else place, length)
    return [
        (Edit(names[_layer(target_layer, layer, len(names))], "set", state, {"position": at}),)
        for layer, state in enumerate(states)
    ]


def _target_prompt(
    subject: Subject, source: Tokens, position: int, configuration: str, into: PromptLike | None
) -> Tokens:
    if into is not None:
        return subject.encode(into)
    if configuration == "next_token":
        return subject.encode(list(source.ids[: position + 1]))
    if subject.tokenizer is None:
        raise CapabilityError(
            f"The target prompt {configuration!r} is text, but {subject.name} was loaded without a tokenizer; pass "
            "into=token ids, or configuration='next_token'."
        )
    return subject.encode(PUBLISHED[configuration])


def _layer(asked: int | None, own: int, layers: int) -> int:
    if asked is None:
        return own
    if not -layers <= asked < layers:
        raise InputError(f"The target layer {asked} was asked for, but the model has layers 0 to {layers - 1}.")
    return asked % layers


def _agreement(right: np.ndarray) -> Evidence:
    """Return how often the first token read is what the model itself predicts at the position: [layer, position]."""
    full = next((layer for layer in range(len(right)) if right[layer:].all()), None)
    return Evidence(
        "agreement with the model's next token",
        f"The first token read is the model's own prediction in {100 * right.mean():.0f} % of the cells"
        + ("." if full is None else f", and in all of them from layer {full} on."),
        {"agreement": float(right.mean()), "cells": float(right.size)},
        {"x": tuple(float(i) for i in range(len(right))), "agreement": tuple(float(r) for r in right.mean(1))},
    )
