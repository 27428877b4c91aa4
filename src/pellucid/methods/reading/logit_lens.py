"""The logit lens: what the model would say if a layer's residual stream went straight to its head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Measure, PromptLike, SiteName, TargetLike
from pellucid.core.results import Evidence, Learned, Scores
from pellucid.core.tokens import Tokens
from pellucid.engine.lens import (
    check_lens,
    chosen_positions,
    last_site,
    layer_grid,
    measured_as,
    output_name,
    stream_sites,
    translated,
)  # fmt: skip
from pellucid.engine.model_head import at_once, outputs_of
from pellucid.engine.readout import Readout, combined
from pellucid.engine.targets import one_token, resolve
from pellucid.engine.variants import decoder_start, mask_position, row, whole
from pellucid.models.forward import Output, forward
from pellucid.models.subject import Subject


@method(
    rows=("MEL-1",),
    paper="arXiv:2303.08112",
    takes="prompt",
    produces="scores",
    axes=("layer", "position"),
    needs=("activations", "logits"),
    cost="2*F",
)
def logit_lens(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    site: SiteName | None = None, positions: int | Sequence[int] | None = None, measure: Measure = "log_prob",
    lens: Learned | None = None,
) -> Scores:  # fmt: skip
    """Read the target off every layer of the residual stream, at every position, by the model's own head.

    R[l, p] = measure of the target in softmax(W_U norm(h_p^l)); `words` is the most likely token of each cell. Exact at
    the output of the last block, where it is the model; below, a reading and no computation of the model
    (nostalgebraist 2020; Belrose et al. 2023, arXiv:2303.08112). Norm, projection, scale and cap are the model's own,
    also under a classifier, whose head reads each position as if it were the one it reads.

    Args:
        subject: the model, from `pellucid.load`; of an encoder-decoder, the decoder is read.
        prompt: text, chat or token ids.
        target: the token or class whose score is shown; None means what the model predicts.
        contrast: the alternative to compare with.
        site: "resid_pre", "resid_mid" or "resid_post" of every block; None means the lens's own, else "resid_post".
        positions: which positions; None means all.
        measure: "log_prob", "prob", "logit" or "entropy", unless the target names its own.
        lens: affine translators from `tuned_lens` or `future_lens` that move the stream of each layer first.

    Returns:
        Scores [layer, position], with the distance between the last layer's reading and the model as evidence.

    Raises:
        SiteError: a site that the model lacks.
        InputError: a position outside the sequence, or a lens of another model or site.
        TargetError: a target of several tokens.
        CapabilityError: a model without a head.
    """
    tokens = subject.encode(prompt)
    readout = measured_as(one_token(resolve(subject, tokens, target, contrast)), target, measure)
    part = site or (lens.site if lens else "resid_post")
    names = stream_sites(subject, part)
    if lens is not None and lens.site != part:
        raise InputError(f"The lens was learned at {lens.site}, but {part} is read; leave site out.")
    last = last_site(subject)
    with torch.no_grad():
        output = forward(subject, [row(subject, tokens, whole(tokens))], capture=list(dict.fromkeys([*names, last])))
        end = output.row(last, 0)
        chosen = chosen_positions(positions, len(end))
        streams = [output.row(name, 0)[chosen] for name in names]
        if lens is not None:
            check_lens(lens, len(names), end.shape[-1])
            streams = [translated(lens, layer, stream) for layer, stream in enumerate(streams)]
        values, words = _read(subject, torch.cat(streams), readout)
        evidence = _evidence(subject, tokens, end, output)
    shown = tokens
    if subject.kind == "encoder-decoder":  # what is read stands in the decoder: its start token, and no prompt
        shown = Tokens((decoder_start(subject),), (output_name(subject, decoder_start(subject)),), (True,))
    title = f"{'Logit lens' if lens is None else lens.title} at {part}"
    return layer_grid(title, values.reshape(len(names), -1), words, shown, chosen, readout, evidence)


def _read(subject: Subject, vectors: torch.Tensor, readout: Readout) -> tuple[np.ndarray, list[str]]:
    """Return the readout of each vector and the output it says first, some rows of logits at a time."""
    values: list[np.ndarray] = []
    best: list[int] = []
    for part in vectors.split(at_once(subject)):
        logits = outputs_of(subject, part).to(torch.float64 if part.dtype == torch.float64 else torch.float32)
        values.append(combined(readout, {(): logits[:, None]})[:, 0].double().cpu().numpy())
        best += [int(i) for i in logits.argmax(-1)]
    known = {index: output_name(subject, index) for index in set(best)}
    return np.concatenate(values), [known[index] for index in best]


def _evidence(subject: Subject, tokens: Tokens, end: torch.Tensor, output: Output) -> Evidence:
    """Return how far the reading behind the last block is from what the model said."""
    given = output.logits[0]
    if given.ndim == 2:
        at = mask_position(subject, tokens) if subject.head == "masked-lm" else len(end) - 1
        given = given[at]
    else:
        at = 0 if subject.kind == "encoder" else len(end) - 1
    found = outputs_of(subject, end[at][None])[0]
    gap = float((found.double() - given.double()).abs().max())
    size = max(float(given.double().abs().max()), 1e-9)
    same = gap <= 5000 * max(torch.finfo(given.dtype).eps, 1e-9) * max(size, 1.0)
    text = f"Behind the last block the lens and the model differ by {gap:.2g} in the logits at position {at}" + (
        "." if same else ", since the head reads more than this position or an edit lies behind the blocks."
    )
    return Evidence(
        "last layer = model", text, {"gap": gap, "largest_logit": size, "position": float(at)},
        ok=same or (None if subject.head == "classification" else False),  # a head may take the mean of positions
    )  # fmt: skip
