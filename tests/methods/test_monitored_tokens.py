"""Scores of tokens by hand, for a direction and for a probe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import EditError, InputError
from pellucid.engine.capture import capture
from pellucid.methods.steering.activation_monitor import activation_monitor
from pellucid.methods.steering.mean_difference import mean_difference
from pellucid.methods.steering.monitored_tokens import monitored_tokens
from tests import plain
from tests.tiny import TINY

POSITIVE, NEGATIVE = [[i, 11 + i, 5] for i in range(6)], [[i + 40, 11 + i, 7] for i in range(6)]


def test_projection_and_probe_by_hand() -> None:
    subject = pellucid.load(plain.tiny("gpt2"))
    values = capture(subject, plain.IDS, ["blocks.1.resid_post"])["blocks.1.resid_post"].numpy()
    learned = mean_difference(subject, POSITIVE, NEGATIVE)
    t = {name: one[1] for name, one in learned.tensors.items()}
    found = monitored_tokens(subject, plain.IDS, learned, layer=1)
    np.testing.assert_allclose(found.values, (values @ t["directions"] - t["offsets"]) / t["scales"], atol=1e-9)
    monitor = activation_monitor(subject, POSITIVE, NEGATIVE)
    told = monitored_tokens(subject, plain.IDS, monitor, layer=1)
    wanted = values @ monitor.tensors["probes"][1] + monitor.tensors["biases"][1]
    np.testing.assert_allclose(told.values, wanted, atol=1e-9)
    assert told.evidence[0].values["last"] == pytest.approx(wanted[-1])
    with pytest.raises(InputError, match="has no probe"):
        monitored_tokens(subject, plain.IDS, learned, reading="probe")
    with pytest.raises(InputError, match="learned for"):
        monitored_tokens(subject, plain.IDS, learned, layer=7)


def test_a_vector_of_another_width_is_refused() -> None:
    learned = mean_difference(pellucid.load(plain.tiny("gpt2")), POSITIVE, NEGATIVE)
    narrow = learned.tensors["directions"][:, :7]
    other = replace(learned, tensors={**learned.tensors, "directions": narrow})
    with pytest.raises(EditError, match="A vector from another model"):
        monitored_tokens(pellucid.load(TINY["gpt2"]()), plain.IDS, other)
