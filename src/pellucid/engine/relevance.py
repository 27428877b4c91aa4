"""Relevance of a readout at the input: one forward pass, one backward pass for all targets, and its books.

`relevance` runs a question under propagation rules and answers with the relevance per token and its books: how much
reaches the tokens, how much constants (biases, position embeddings) absorb in each block, and what remains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.axes import Site, parse_site
from pellucid.core.errors import ModelError
from pellucid.core.results import Evidence
from pellucid.engine.backward import together
from pellucid.engine.planning import TOKENS_PER_BATCH
from pellucid.engine.reading import read
from pellucid.engine.rules import Absorbed, Rules, following
from pellucid.engine.variants import token_site, whole
from pellucid.models.edits import Context, Edit
from pellucid.models.forward import Output
from pellucid.models.hooks import acting
from pellucid.models.layout import depth, place

if TYPE_CHECKING:
    from pellucid.engine.question import Question
    from pellucid.models.subject import Subject

Leaf = Callable[[torch.Tensor, Context], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Relevance:
    """What came back, and the books.

    `tokens` [targets, positions] is the relevance of the prompt, `forced` [targets, forced positions] that of the
    tokens behind it (the decoder's tokens in an encoder-decoder). `values` [targets] is what was explained and `start`
    [targets] the relevance handed out at the logits, equal to `values` for logits and their differences. `cuts` is the
    relevance of the residual stream before each block and behind the last (one-stack models), `absorbed` what constants
    took by stage; both are summed over targets. `sites` holds, for the inputs and each site asked for, a pair per
    forced continuation: the value and its gradients, with the targets in front. Relevance is their product.
    """

    values: torch.Tensor
    start: torch.Tensor
    tokens: torch.Tensor
    forced: torch.Tensor
    cuts: list[float]
    absorbed: dict[float, float]
    sites: dict[str, list[tuple[torch.Tensor, torch.Tensor]]]

    def by_position(self) -> np.ndarray:
        """Return the relevance of the prompt as float64 [positions, targets]."""
        return np.ascontiguousarray(self.tokens.T.double().cpu().numpy())


def relevance(question: Question, rules: Rules, sites: Sequence[str] = ()) -> Relevance:
    """Return the relevance of a question's readout at the token embeddings, under propagation rules.

    Exact for what the rules state. Costs one forward pass per forced continuation and one backward pass, in which all
    targets go back together.
    """
    return propagated(question, following(question.subject, rules), sites)


def propagated(question: Question, context: AbstractContextManager[Absorbed], sites: Sequence[str] = ()) -> Relevance:
    """Return the relevance under any context that changes the backward pass and tells what absorbs relevance."""
    subject, readout = question.subject, question.readout
    run = run_with_leaves(question, context, sites)
    tensors = [t for name in run.kept for t in run.kept[name]]
    cuts = [run.output.captured[name] for name in run.cuts]
    constants = [leaf for _, leaf in run.absorbed.leaves]
    single = len(readout.forced) == 1
    logits = [run.output.logits] if single else []
    grads = _gradients(run.values, [*tensors, *cuts, *constants, *logits], len(question.tokens))
    subject.count(backwards=len(run.values))
    size = len(tensors)
    found, pairs = {}, iter(zip(tensors, grads, strict=False))
    for name in run.kept:
        found[name] = [(t.detach(), g) for t, g in (next(pairs) for _ in run.kept[name])]
    tokens, forced = _tokens(question, [[_share(t, g) for t, g in found[name]] for name in _inputs(subject)])
    start = _share(logits[0], grads[-1]).flatten(1).sum(1) if single else run.values.detach()
    totals = _totals([*cuts, *constants], grads[size : size + len(cuts) + len(constants)])
    if not (np.isfinite(totals).all() and bool(torch.isfinite(torch.cat([tokens, forced], -1)).all())):
        raise ModelError(
            f"The relevance of {readout.description} is not finite; load the model in float32 and check its weights."
        )
    taken: dict[float, float] = {}
    for (stage, _), share in zip(run.absorbed.leaves, totals[len(cuts) :], strict=True):
        taken[stage] = taken.get(stage, 0.0) + share
    sums = totals[: len(cuts)]
    return Relevance(run.values.detach(), start, tokens, forced, sums, taken, found)


@dataclass(frozen=True, eq=False)
class Run:
    """One forward pass with its graph: values [targets], what was kept at inputs and sites, and what absorbs."""

    values: torch.Tensor
    output: Output
    kept: dict[str, list[torch.Tensor]]
    cuts: list[str]
    absorbed: Absorbed


def run_with_leaves(
    question: Question, context: AbstractContextManager[Absorbed], sites: Sequence[str] = (),
    start: torch.Tensor | None = None,
) -> Run:  # fmt: skip
    """Run a question once with the token embeddings as leaves of the graph.

    Args:
        question: what is asked.
        context: held while the model runs.
        sites: sites whose values are kept in the graph, one value per forced continuation.
        start: embeddings [positions, dimension] that stand in for the prompt's own.
    """
    inputs = _inputs(question.subject)
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in (*inputs, *sites)}
    edits = [Edit(name, _keep(kept[name], leaf=name in inputs)) for name in kept]
    if start is not None:
        edits.insert(0, Edit(inputs[0], "set", start, {"position": tuple(range(len(start)))}))
    cuts = _cuts(question.subject) if len(question.readout.forced) == 1 else []
    with acting(_last_layer(question, sites)), context as absorbed:
        values, output = read(
            question.subject, question.tokens, question.readout, [whole(question.tokens)], edits=[tuple(edits)],
            capture=cuts, grad=True,
        )  # fmt: skip
    assert output is not None
    return Run(values[0], output, kept, cuts, absorbed)


def _last_layer(question: Question, sites: Sequence[str]) -> dict[torch.nn.Module, Callable[..., Any]]:
    """Return the last feed-forward layer's work from the last token of the prompt on: no row before it is read.

    Nothing where another site there is looked at, or where the model is not a plain stack of blocks.
    """
    subject, first = question.subject, len(question.tokens) - 1
    if (subject.kind, subject.head, question.readout.kind) != ("decoder", "causal-lm", "next") or subject.edits:
        return {}
    layout = subject.need_layout()
    stack, last = layout.stacks[""], depth(subject.model, layout) - 1
    if stack.shared or any(parse_site(site).layer in (None, last) for site in sites):
        return {}
    name = "mlp.out_raw" if "mlp.out_raw" in stack.taps else "mlp.out"
    module = place(subject.model, layout, Site("", last, name)).module
    own = module.forward

    def work(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or args[0].ndim != 3:
            return own(*args, **kwargs)
        found = own(args[0][:, first:])
        return torch.nn.functional.pad(found, (0, 0, first, 0)) if isinstance(found, torch.Tensor) else own(*args)

    return {module: work}


def _inputs(subject: Subject) -> list[str]:
    return [token_site(subject), *(["decoder.embed.token"] if subject.kind == "encoder-decoder" else [])]


def conservation(found: Relevance, subject: Subject, *, conserving: bool) -> Evidence:
    """Return the evidence of where the relevance went: tokens, constants, and what no part accounts for.

    Args:
        found: the relevance and its books.
        subject: the model, for the name of its blocks.
        conserving: whether the rules keep the sum, so that a remainder is an error.
    """
    start, tokens, forced = (float(t.double().sum()) for t in (found.start, found.tokens, found.forced))
    constants = sum(found.absorbed.values())
    remainder = start - tokens - forced - constants
    scale = max(abs(start), 1e-9)
    curves: dict[str, tuple[float, ...]] = {}
    worst = ""
    if len(found.cuts) > 1:
        steps = np.diff(found.cuts)
        taken = np.array([found.absorbed.get(float(k), 0.0) for k in range(1, len(found.cuts))])
        left = steps - taken
        curves = {
            "x": tuple(float(k) for k in range(len(steps))), "relevance": tuple(found.cuts[:-1]),
            "constants": tuple(taken.tolist()), "remainder": tuple(left.tolist()),
        }  # fmt: skip
        worst = f"; the largest remainder of a block is {np.abs(left).max():.2g}"
    else:
        left = np.zeros(0)
    return Evidence(
        "conservation",
        f"Of {start:.3g}, the prompt gets {tokens:.3g}, other tokens {forced:.3g}, biases and position embeddings "
        f"{constants:.3g}, and {remainder:.2g} is lost in steps that do not conserve{worst}.",
        {
            "start": start, "tokens": tokens, "forced": forced, "constants": constants, "remainder": remainder,
            "largest_block_remainder": float(np.abs(left).max(initial=0.0)),
        },
        curves,
        ok=bool(abs(remainder) < 1e-2 * scale or abs(remainder) < 1e-3) if conserving else None,
    )  # fmt: skip


def _keep(into: list[torch.Tensor], *, leaf: bool) -> Leaf:
    """Return an edit that changes nothing but keeps the value, as a leaf where it must be or where it had no graph."""

    def keep(value: torch.Tensor, context: Context) -> torch.Tensor:
        value = value.detach().clone().requires_grad_() if leaf or not value.requires_grad else value
        into.append(value)
        return value

    return keep


def _cuts(subject: Subject) -> list[str]:
    layout = subject.need_layout()
    if set(layout.stacks) != {""}:
        return []
    layers = depth(subject.model, layout, "")
    return [*(str(Site("", k, "resid_pre")) for k in range(layers)), str(Site("", layers - 1, "resid_post"))]


def _gradients(values: torch.Tensor, tensors: Sequence[torch.Tensor], length: int) -> list[torch.Tensor]:
    """Return the gradient of every value with respect to every tensor, [values, ...] each, in one backward pass.

    Many values go back in parts, so that the memory stays that of one batch.
    """
    most = max(1, TOKENS_PER_BATCH // length)
    found: list[tuple[torch.Tensor, ...]] = []
    for first in range(0, len(values), most):
        part, keep = values[first : first + most], first + most < len(values)
        if len(part) == 1:
            grads = torch.autograd.grad(part[0], tensors, materialize_grads=True, retain_graph=keep)
            found.append(tuple(g[None] for g in grads))
        else:
            found.append(together([part], tensors, [torch.eye(len(part)).to(part)], keep))
    return [parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*found, strict=True)]


def _share(value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    # Masks hold the lowest number, and that times no gradient must be nothing.
    return (gradient * value.detach()).masked_fill_(gradient == 0, 0.0)


def _totals(values: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> list[float]:
    """Return the summed relevance of each tensor; they wait for the device once."""
    found = [_share(v, g).sum(dtype=torch.float64) for v, g in zip(values, gradients, strict=True)]
    return torch.stack([total.to(found[0].device) for total in found]).tolist() if found else []


def _tokens(question: Question, shares: list[list[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the relevance of prompt and forced tokens: [targets, positions] each, summed over the continuations."""
    length = len(question.tokens)
    summed = [[share.sum(-1) for share in group] for group in shares]
    tokens = torch.stack([share[:, :length] for share in summed[0]]).sum(0)
    behind = summed[1] if len(summed) > 1 else [share[:, length:] for share in summed[0]]
    width = max(share.shape[1] for share in behind)
    forced = torch.stack([torch.nn.functional.pad(share, (0, width - share.shape[1])) for share in behind]).sum(0)
    return tokens, forced
