"""QK and OV circuits: what a head looks for and what it copies, from its weights alone, through the vocabulary."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from pellucid.core.metadata import method
from pellucid.core.results import Evidence, Scores
from pellucid.engine.head_weights import ROWS_AT_ONCE, embedding, head_weights, unembedding
from pellucid.models.subject import Subject


@method(
    rows=("TXB-2",),
    paper="Elhage et al. 2021, transformer-circuits.pub/2021/framework",
    takes="models",
    produces="scores",
    axes=("layer", "head"),
    needs=("weights",),
    cost="0*F",
)
def qk_ov_circuits(subject: Subject, *, circuit: Literal["ov", "qk"] = "ov") -> Scores:
    """Score each head by the eigenvalues of its circuit from token to token: sum of lambda / sum of |lambda|.

    "ov" is W_E W_V W_O W_U, what attending to a token adds to each logit: 1 means that the head copies the tokens it
    attends to, -1 that it suppresses them. "qk" is W_E W_Q (W_E W_K)^T, how strongly token attends to token (at equal
    rotary positions): 1 means that tokens attend to their like. The vocabulary x vocabulary matrix is never made: its
    nonzero eigenvalues are those of a matrix as wide as the head, W_O (W_U W_E) W_V. Norms count as their gain. Exact
    for these products, an approximation of heads that read later streams (Elhage et al. 2021).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        circuit: "ov" or "qk".

    Returns:
        Scores [layer, head] from -1 to 1; the eigenvalues' sizes are in the evidence.

    Raises:
        CapabilityError: a model without one pre-norm stack or without a plain unembedding.
    """
    tokens = embedding(subject)
    outputs = unembedding(subject) if circuit == "ov" else tokens
    scores, sizes = [], []
    for layer in range(subject.layers):
        weights = head_weights(subject, layer)
        heads, _, width = weights.value.shape
        small = torch.zeros(heads, width, width, dtype=tokens.dtype, device=tokens.device)
        for first in range(0, min(len(tokens), len(outputs)), ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            if circuit == "ov":
                small += torch.einsum("hwd,vd,ve,hex->hwx", weights.output, outputs[part], tokens[part], weights.value)
            else:
                small += torch.einsum("hdw,vd,ve,hex->hwx", weights.key, outputs[part], tokens[part], weights.query)
        found = torch.linalg.eigvals(small.double()).cpu().numpy()
        sizes.append(np.abs(found).sum(1))
        scores.append(found.real.sum(1) / np.maximum(sizes[-1], 1e-300))
    result = Scores(
        title="Copying by OV circuits" if circuit == "ov" else "Matching by QK circuits",
        values=np.stack(scores),
        axes=("layer", "head"),
        labels={"layer": tuple(str(i) for i in range(len(scores)))},
        unit="sum of eigenvalues / sum of their sizes",
        sign="positive copies the token" if circuit == "ov" else "positive attends to like tokens",
        target="every token",
    )
    best = np.unravel_index(int(np.argmax(result.values)), result.values.shape)
    positive = float((result.values > 0).mean())
    return result.with_evidence(
        Evidence(
            "eigenvalues",
            f"Head {best[0]}.{best[1]} scores highest, {result.values[best]:.2f}; {100 * positive:.0f} % of the heads "
            f"are positive, and the eigenvalues of a head sum to {np.stack(sizes).mean():.3g} in size on average.",
            {"highest": float(result.values[best]), "positive": positive, "size": float(np.stack(sizes).mean())},
        )
    )
