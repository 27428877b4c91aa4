"""Hard concrete gates: the chances stated are those of the draws, and gradients reach the locations."""

import pytest
import torch

from pellucid.engine.hard_concrete import open_chance, sampled, settled


@pytest.mark.parametrize("location", [-2.0, 0.0, 1.5])
def test_the_chance_of_an_open_gate_is_that_of_the_draws(location: float) -> None:
    locations = torch.full((200_000,), location, dtype=torch.float64)
    gates = sampled(locations, torch.Generator().manual_seed(0))
    assert 0 <= gates.min() <= gates.max() <= 1
    assert (gates > 0).double().mean().item() == pytest.approx(open_chance(locations)[0].item(), abs=0.005)
    # a gate is 1 as often as its mirror image is 0
    assert (gates < 1).double().mean().item() == pytest.approx(open_chance(-locations)[0].item(), abs=0.005)


def test_gates_settle_at_both_ends_and_can_be_trained() -> None:
    locations = torch.tensor([-4.0, 0.0, 4.0], requires_grad=True)
    torch.testing.assert_close(settled(locations), torch.tensor([0.0, 0.5, 1.0]))
    sampled(locations, torch.Generator().manual_seed(1)).sum().backward()
    assert locations.grad is not None
    assert locations.grad[1] > 0
