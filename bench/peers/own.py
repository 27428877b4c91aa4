"""Our own plain forward pass: what capturing is measured against."""

from __future__ import annotations

import numpy as np

import pellucid
from bench.jobs import as_array, batch_of
from bench.models import Case
from bench.ways import Setting, Way, whole


def capture(setting: Setting) -> list[Way]:
    """The same batch through the engine with nothing captured."""
    from pellucid.models.forward import forward

    subject = pellucid.load(setting.model)

    def run(case: Case, batch: int) -> np.ndarray:
        return as_array(forward(subject, batch_of(case)).logits[:, -1])

    return [Way("plain forward", run, timed_agree=whole)]
