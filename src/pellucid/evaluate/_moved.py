"""Where inside the model a change is felt: the residual stream behind every block, before against after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pellucid.core.results import Scores
from pellucid.engine.lens import stream_sites
from pellucid.engine.planning import in_batches
from pellucid.models.batch import Row
from pellucid.models.forward import forward
from pellucid.models.subject import Subject


def moved(subject: Subject, edited: Subject, groups: Mapping[str, Sequence[Any]], *, whole: str) -> Scores:
    """Return |h' - h| / |h| of the stream behind each block, a mean over the texts of each group: [layer, part].

    At the last token of each text; in the group `whole` at all tokens. Exact.
    """
    columns = [_group(subject, edited, texts, name == whole) for name, texts in groups.items()]
    return Scores(
        title="What moved inside",
        values=np.stack(columns, axis=1),
        axes=("layer", "part"),
        labels={"part": tuple(groups)},
        unit="share of the stream's length",
        sign="larger means that the change is felt more behind that block",
        target="the residual stream",
    )


@torch.no_grad()
def _group(subject: Subject, edited: Subject, texts: Sequence[Any], everywhere: bool) -> np.ndarray:
    sites = stream_sites(subject, "resid_post")

    def run(batch: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[np.ndarray]:
        first, second = (forward(one, [Row(pair[side]) for pair in batch], capture=sites)
                         for side, one in enumerate((subject, edited)))  # fmt: skip
        found = []
        for i in range(len(batch)):
            before, after = (torch.stack([out.row(site, i).double() for site in sites]) for out in (first, second))
            size = min(before.shape[1], after.shape[1])  # a context may stand before the text on one side
            before, after = before[:, -size:], after[:, -size:]
            share = (after - before).norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-30)
            found.append((share.mean(1) if everywhere else share[:, -1]).cpu().numpy())
        return found

    pairs = [
        (subject.encode(text).ids[: subject.max_length], edited.encode(text).ids[: edited.max_length]) for text in texts
    ]
    return np.mean(in_batches(pairs, [max(map(len, pair)) for pair in pairs], run), axis=0)
