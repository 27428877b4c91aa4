"""Source and target shares: they sum to 1, and to all or nothing where the model reads only one side."""

import numpy as np
import pytest

import pellucid
from pellucid import Target
from pellucid.core.errors import CapabilityError
from pellucid.methods.relevance.source_target_shares import source_target_shares
from pellucid.models.load import subject_of
from tests import plain


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_shares_are_not_negative_and_sum_to_one(name: str) -> None:
    found = source_target_shares(pellucid.load(plain.tiny(name)), plain.IDS, target=[17, 33, 60])
    assert found.axes == ("target", "part")
    assert found.labels["part"] == ("source", "prefix")
    assert (found.values > 0).all()
    np.testing.assert_allclose(found.values.sum(1), 1, atol=1e-12)
    assert found.evidence[0].ok


def test_a_decoder_without_cross_attention_reads_only_its_prefix() -> None:
    model = plain.tiny("t5")
    for block in model.decoder.block:
        block.layer[1].EncDecAttention.o.weight.data.zero_()
    subject = subject_of(model, None, name="deaf", proved=False)
    found = source_target_shares(subject, plain.IDS, target=[17, 33])
    np.testing.assert_allclose(found.values, [[0, 1], [0, 1]], atol=1e-12)


def test_a_decoder_whose_prefix_is_nothing_reads_only_the_source() -> None:
    model = plain.tiny("t5")
    model.shared.weight.data[0] = 0  # the start token, all that the decoder has before its first token
    found = source_target_shares(pellucid.load(model), plain.IDS, target=33)
    np.testing.assert_allclose(found.values, [[1, 0]], atol=1e-9)


def test_each_token_is_a_run_of_its_own() -> None:
    subject = pellucid.load(plain.tiny("t5"))
    both = source_target_shares(subject, plain.IDS, target=[17, 33])
    first = source_target_shares(subject, plain.IDS, target=17)
    np.testing.assert_allclose(both.values[0], first.values[0], atol=1e-10)
    assert both.provenance.forwards == 1
    generated = source_target_shares(subject, plain.IDS, target=Target.generated(3))
    assert generated.values.shape == (3, 2)


def test_a_decoder_alone_is_refused() -> None:
    with pytest.raises(CapabilityError, match="lrp"):
        source_target_shares(pellucid.load(plain.tiny()), plain.IDS, target=17)
