"""Monitored tokens: how far a learned direction or monitor speaks at each token of a prompt or reply."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pellucid.core.errors import EditError, InputError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike
from pellucid.core.results import Evidence, Learned, Scores
from pellucid.engine.capture import capture, part_name
from pellucid.models.subject import Subject


@method(
    rows=("N-ST9", "N-ST6"),
    paper="arXiv:2507.21509",
    takes="dataset",
    produces="scores",
    axes=("position",),
    needs=("activations",),
    cost="F",
)
def monitored_tokens(
    subject: Subject, prompt: PromptLike, direction: Learned, *, layer: int | None = None,
    reading: Literal["auto", "projection", "probe"] = "auto",
) -> Scores:  # fmt: skip
    """Score every token by what a learned direction or monitor reads there.

    "projection": (h . v - offset) / scale, the distance along the unit direction from the middle of both sets, in units
    of the mean norm; "probe": the logit h . w + b, above 0 (or the alarm threshold) for the behaviour. Exact. Reading
    the last token of a prompt foretells the reply (Chen et al. 2025, arXiv:2507.21509).

    Args:
        subject: the model that the direction was learned from, or a changed one.
        prompt: text, chat or token ids.
        direction: of a steering method.
        layer: whose direction; None takes the method's choice.
        reading: "auto" takes the probe where there is one.

    Returns:
        Scores [position]; the evidence has the mean, the last token's and the largest score.

    Raises:
        EditError: a vector from another model.
        InputError: a layer that was not learned, or something that is no direction of a stream.
    """
    tensors = direction.tensors
    if direction.apply != "direction" or tensors["directions"].ndim != 2:
        raise InputError(
            f"monitored_tokens reads one direction per layer, but got {direction.title!r}; give a direction of a part "
            "of the stream."
        )
    chosen, index = _layer(direction, layer)
    tokens = subject.encode(prompt)
    site = part_name(subject, direction.site).replace("*", str(chosen))
    values = capture(subject, tokens, [site])[site].double().cpu().numpy()
    if values.shape[-1] != tensors["directions"].shape[-1]:
        raise EditError(
            f"A vector from another model: it has {tensors['directions'].shape[-1]} components, but {site} of "
            f"{subject.name} has {values.shape[-1]}; learn the direction from this model."
        )
    probe = "probes" in tensors if reading == "auto" else reading == "probe"
    if probe and "probes" not in tensors:
        raise InputError(f"{direction.title!r} has no probe; use reading='projection'.")
    if probe:
        scores = values @ tensors["probes"][index] + tensors["biases"][index]
        level = float(tensors["alarms"][index]) if "alarms" in tensors else 0.0
    else:
        offset = tensors["offsets"][index] if "offsets" in tensors else 0.0
        scores, level = (values @ tensors["directions"][index] - offset) / tensors["scales"][index], 0.0
    return Scores(
        title=f"{direction.title} at each token",
        values=scores,
        axes=("position",),
        unit="logit" if probe else "mean norms",
        sign="larger means more of what was learned",
        tokens=tokens,
        target=f"layer {chosen} of {direction.site}",
        evidence=(_summary(scores, level),),
    )


def _layer(direction: Learned, layer: int | None) -> tuple[int, int]:
    """Return the layer that is read, and its place among those learned."""
    own = [int(one) for one in direction.settings["layers"]]
    chosen = int(direction.settings["layer"]) if layer is None else layer
    if chosen not in own:
        raise InputError(f"Layer {chosen} was asked for, but the direction was learned for {own}; use one of these.")
    return chosen, own.index(chosen)


def _summary(scores: np.ndarray, level: float) -> Evidence:
    return Evidence(
        "what the monitor says",
        f"The mean over {len(scores)} tokens is {scores.mean():.3g}, the last token's score {scores[-1]:.3g}, the "
        f"largest {scores.max():.3g}; {int((scores > level).sum())} tokens lie above {level:.3g}.",
        {"mean": float(scores.mean()), "last": float(scores[-1]), "largest": float(scores.max()), "level": level},
    )
