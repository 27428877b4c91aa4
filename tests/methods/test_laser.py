"""LASER against the definition: the best matrix of a rank, by its singular values and by rivals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import EditError, InputError
from tests import plain

NAME = "transformer.h.1.mlp.c_proj.weight"


def test_keeps_the_nearest_matrix_of_its_rank() -> None:
    subject = pellucid.load(plain.tiny())
    weight = subject.model.get_parameter(NAME).detach().numpy().copy()
    edit = pellucid.run("laser", subject, NAME, keep=0.25)
    rank = round(0.25 * min(weight.shape))
    new = subject.with_(edit).model.get_parameter(NAME).detach().numpy()
    sizes = np.linalg.svd(weight, compute_uv=False)
    np.testing.assert_allclose(np.linalg.svd(new, compute_uv=False)[:rank], sizes[:rank], rtol=1e-9)
    assert np.linalg.matrix_rank(new) == rank
    gap = np.linalg.norm(new - weight)
    assert gap == pytest.approx(np.sqrt((sizes[rank:] ** 2).sum()))
    [check] = edit.evidence
    assert check.values["dropped norm"] == pytest.approx(gap)
    assert check.values["kept"] == pytest.approx((sizes[:rank] ** 2).sum() / (sizes**2).sum())
    rng = np.random.default_rng(0)
    for _ in range(20):
        rival = new + 0.01 * rng.normal(size=(weight.shape[0], rank)) @ rng.normal(size=(rank, weight.shape[1]))
        left, values, right = np.linalg.svd(rival)
        assert np.linalg.norm((left[:, :rank] * values[:rank]) @ right[:rank] - weight) > gap
    assert np.array_equal(subject.model.get_parameter(NAME).detach().numpy(), weight), "the original is untouched"


def test_all_of_the_rank_changes_nothing() -> None:
    subject = pellucid.load(plain.tiny())
    same = subject.with_(pellucid.run("laser", subject, NAME, keep=1.0))
    assert torch.equal(same.model.get_parameter(NAME), subject.model.get_parameter(NAME))


def test_refuses_what_is_no_matrix() -> None:
    subject = pellucid.load(plain.tiny())
    with pytest.raises(InputError, match="no matrix"):
        pellucid.run("laser", subject, "transformer.h.1.mlp.c_proj.bias")
    with pytest.raises(EditError, match="no parameter"):
        pellucid.run("laser", subject, "transformer.h.9.mlp.c_proj.weight")
    with pytest.raises(EditError, match="tied"):
        pellucid.run("laser", subject, "transformer.wte.weight")
