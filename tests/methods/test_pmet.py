"""PMET writes the feed-forward part of a value that was optimised together with attention's."""

from __future__ import annotations

import torch

from pellucid.engine.down_projection import down_projections
from pellucid.engine.edit_requests import wordings
from pellucid.engine.key_covariance import key_covariance
from pellucid.engine.value_optimisation import Settings, optimise_values_plain
from pellucid.methods.editing.pmet import pmet
from tests.editing import FACTS, TEXTS, editable, keys_of, values_of


def test_the_lowest_layer_takes_its_root_share_of_the_feed_forward_part() -> None:
    subject = editable("llama")
    edit = pmet(
        subject, FACTS[:2], layers=[0, 1], token="last", weight=20.0, steps=3, texts=TEXTS, neutral=TEXTS[:3],
        prefixes=(), clamp=5.0,
    )  # fmt: skip
    written = wordings(subject, FACTS[:2], (), "last")
    sites = ["blocks.1.attn.out", "blocks.1.mlp.out"]
    found = optimise_values_plain(subject, sites, written, Settings(3, 0.2, 1.0, 0.5, 5.0))
    rows = [one.rows[0] for one in written]
    present = torch.stack([values_of(subject, 1, row.ids)[row.position] for row in rows])
    torch.testing.assert_close(found.start[sites[1]], present)
    residual = found.vectors[sites[1]] / 2**0.5
    assert float(found.vectors[sites[0]].norm()) > 0
    keys = torch.stack([keys_of(subject, 0, row.ids)[row.position] for row in rows])
    at = down_projections(subject, [0])
    second = 20.0 * key_covariance(subject, at, TEXTS)[0].shrunk()
    expected = torch.linalg.solve(second + keys.T @ keys, keys.T @ residual).T
    torch.testing.assert_close(torch.as_tensor(edit.delta(at[0].name)).double(), expected, rtol=1e-4, atol=1e-6)
    account = {evidence.name: evidence for evidence in edit.evidence}
    assert account["efficacy"].values["after"] > account["efficacy"].values["before"]
