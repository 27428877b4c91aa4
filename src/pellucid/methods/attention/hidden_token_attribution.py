"""Hidden token attribution: how much of each input token a hidden state holds, by the size of its Jacobian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pellucid.core.axes import Site
from pellucid.core.errors import InputError, ModelError
from pellucid.core.metadata import method
from pellucid.core.params import PromptLike, TargetLike, Unit
from pellucid.core.results import Scores
from pellucid.engine.backward import frozen, together
from pellucid.engine.patterns import chosen_layers
from pellucid.engine.planning import TOKENS_PER_BATCH, check_cancelled
from pellucid.engine.question import Question, ask, per_unit, read_position
from pellucid.engine.reading import read
from pellucid.engine.variants import token_site, whole
from pellucid.models.edits import Context, Edit
from pellucid.models.layout import main_stack
from pellucid.models.subject import Subject


@method(
    rows=("ATT-13",),
    paper="arXiv:1908.04211",
    takes="prompt",
    produces="scores",
    axes=("layer", "unit"),
    needs=("gradients", "activations"),
    cost="2*F+layers*dimensions*B",
)
def hidden_token_attribution(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, unit: Unit = "token",
    position: int | None = None, layers: Sequence[int] | None = None,
) -> Scores:  # fmt: skip
    """Share the hidden state at one position among the input tokens, after every block.

    c[l, j] = |d h_l / d x_j| / sum over k of |d h_l / d x_k|, where h_l is the residual stream behind block l at the
    position, x_j the token embedding and |.| the Frobenius norm of the Jacobian. The share of the position's own token
    says how far its hidden state may still be read as that token. Unsigned; shares of all tokens sum to 1. Exact for
    what it states; one backward pass per dimension and layer (Brunner et al. 2020, arXiv:1908.04211).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the encoder is read.
        prompt: text, chat or token ids.
        target: only names the target in the result.
        unit: "token", "word", "sentence", "line", "message" or token ranges.
        position: the position whose hidden states are shared out; None means the one that the output is read from.
        layers: the blocks behind which they are read; None means all.

    Returns:
        Scores [layer, unit].

    Raises:
        InputError: a layer or position that does not exist.
        ModelError: a gradient that is not finite.
    """
    question = ask(subject, prompt, target=target, unit=unit)
    length = len(question.tokens)
    place = read_position(question) if position is None else position
    if not -length <= place < length:
        raise InputError(f"Position {place} was asked for, but the prompt has positions 0 to {length - 1}; name one.")
    stack = "encoder" if main_stack(subject.need_layout()) == "decoder" else ""
    numbers = chosen_layers(subject, layers, stack)
    sizes = _jacobian_sizes(question, [str(Site(stack, layer, "resid_post")) for layer in numbers], place % length)
    shares = sizes / np.maximum(sizes.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    return Scores(
        title=f"Hidden token attribution at position {place % length}",
        values=per_unit(np.ascontiguousarray(shares.T), question.units).T,
        axes=("layer", "unit"),
        labels={"layer": tuple(str(layer) for layer in numbers), "unit": question.units.labels},
        unit="share",
        sign="larger means the hidden state holds more of the token",
        tokens=question.tokens,
        units=question.units,
        target=question.readout.description,
    )


def _jacobian_sizes(question: Question, sites: Sequence[str], place: int) -> np.ndarray:
    """Return the Frobenius norms [sites, positions] of the Jacobians of hidden states at one position."""
    subject, leaves = question.subject, list[torch.Tensor]()

    def leaf(value: torch.Tensor, context: Context) -> torch.Tensor:
        leaves.append(value.detach().clone().requires_grad_())
        return leaves[-1]

    edits = [(Edit(token_site(subject), leaf),)]
    with subject.lock, frozen(subject.model), torch.enable_grad():
        _, output = read(
            subject, question.tokens, question.readout, [whole(question.tokens)], edits=edits, capture=sites, grad=True
        )
        assert output is not None
        states = [output.row(site, 0)[place] for site in sites]
        squares = [_squares(state, leaves[0])[: len(question.tokens)] for state in states]
    subject.count(backwards=sum(len(state) for state in states))
    sizes = torch.stack(squares).sqrt().cpu().numpy()
    if not np.isfinite(sizes).all():
        raise ModelError(
            "The gradient of a hidden state is not finite; load the model in float32 and check its weights."
        )
    return sizes


def _squares(state: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Return the squared norms [positions] of the Jacobian of a state [dimension], some dimensions at a time."""
    directions = torch.eye(len(state), dtype=state.dtype, device=state.device)
    total = torch.zeros(len(leaf), dtype=torch.float64, device=state.device)
    for some in directions.split(max(1, TOKENS_PER_BATCH // len(leaf))):
        check_cancelled()
        try:
            (found,) = together([state], [leaf], [some])
        except RuntimeError:  # an operation whose backward cannot be batched
            found = torch.stack([torch.autograd.grad(state, leaf, one, retain_graph=True)[0] for one in some])
        total += found.double().square().sum((0, 2))
    return total
