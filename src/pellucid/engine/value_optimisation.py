"""Vectors that, added at one place of a layer, make the model say what it should: the values that editors write.

Everything that does not depend on the vector is computed once: the blocks below the layer, and in all blocks the
keys and values left of the subject's last token. Each step runs what is left, for many edits at once, and sends only
the places that predict the target through the unembedding. `optimise_values_plain` runs every row in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pellucid.core.axes import parse_site
from pellucid.core.errors import EditError
from pellucid.engine.backward import frozen
from pellucid.engine.cone_rows import blocks_of, put_in
from pellucid.engine.edit_requests import Wordings, Written
from pellucid.engine.planning import TOKENS_PER_BATCH, check_cancelled
from pellucid.engine.scoring import trusted
from pellucid.models.batch import Row
from pellucid.models.edits import Edit
from pellucid.models.forward import forward, tail_hooks
from pellucid.models.hooks import Hook, bypassed, hooked, parts_of
from pellucid.models.kernels import first_order, session
from pellucid.models.shared_past import Past
from pellucid.models.tails import Tail, continue_rows, within_window
from pellucid.models.taps import first_input, rewrap, unwrap

if TYPE_CHECKING:
    from pellucid.models.subject import Subject


@dataclass(frozen=True)
class Settings:
    """How vectors are optimised: Adam steps and rate, and what keeps the vector small and the subject itself.

    The loss of an edit is the mean over wordings of the target's mean negative log-likelihood, plus `essence` times
    KL(now | before) of the next token behind "SUBJECT is a", plus `decay` times |vector| / |value|^2. The vector stays
    within `clamp` times |value|, and an edit ends once its loss is below `enough`.
    """

    steps: int = 20
    rate: float = 0.5
    essence: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    enough: float = 0.05


@dataclass(frozen=True, eq=False)
class Optimised:
    """What was found: per site the vectors [edits, dimension] to add, and the loss [steps, edits], NaN once ended.

    `start` holds per site the value [edits, dimension] without prefix and edit.
    """

    vectors: dict[str, torch.Tensor]
    start: dict[str, torch.Tensor]
    losses: np.ndarray


@dataclass(eq=False)
class _Edits:
    """Some edits that are optimised together: their rows, the vectors and what the essence prompts said before."""

    wordings: Sequence[Wordings]
    rows: list[Written]
    owners: list[int]
    vectors: list[list[torch.Tensor]]
    before: list[torch.Tensor] = field(default_factory=list)

    def of(self, edits: Sequence[int]) -> list[int]:
        """Return the numbers of the rows that belong to some edits."""
        return [number for number, owner in enumerate(self.owners) if owner in edits]


def optimise_values(
    subject: Subject, sites: Sequence[str], wordings: Sequence[Wordings], settings: Settings
) -> Optimised:
    """Return the vectors that make each fact's target likely when added at its subject's last token.

    Equal to `optimise_values_plain` up to rounding.

    Args:
        subject: a decoder with a language-model head.
        sites: where the vectors are added, all in one block; several get a vector each.
        wordings: the facts, from `engine.edit_requests.wordings`.
        settings: how.

    Raises:
        EditError: the loss is no number; nothing of the model was changed.
    """
    longest = max(len(row.ids) for one in wordings for row in (*one.rows, one.essence))
    if not trusted(subject) or not within_window(subject, longest):
        return optimise_values_plain(subject, sites, wordings, settings)
    return _optimise(subject, sites, wordings, settings, _Cached)


def optimise_values_plain(
    subject: Subject, sites: Sequence[str], wordings: Sequence[Wordings], settings: Settings
) -> Optimised:
    """Optimise as `optimise_values` does, with every row a full forward."""
    return _optimise(subject, sites, wordings, settings, _Plain)


def _optimise(
    subject: Subject, sites: Sequence[str], wordings: Sequence[Wordings], settings: Settings, way: Any
) -> Optimised:
    start = _start(subject, sites, wordings)
    losses = np.full((settings.steps, len(wordings)), np.nan)
    found = {site: torch.zeros_like(value) for site, value in start.items()}
    for chunk in _chunks(wordings):
        some = [wordings[i] for i in chunk]
        rows = [row for one in some for row in (*one.rows, one.essence)]
        owners = [number for number, one in enumerate(some) for _ in range(len(one.rows) + 1)]
        vectors = [[torch.zeros_like(start[site][i]).requires_grad_() for site in sites] for i in chunk]
        edits = _Edits(some, rows, owners, vectors)
        norms = torch.stack([torch.stack([start[site][i].norm() for site in sites]) for i in chunk])
        tokens = sum(len(row.ids) for row in rows) * settings.steps
        with session(subject, tokens), frozen(subject.model), first_order():
            losses[:, chunk] = _steps(subject, edits, norms, settings, way(subject, sites, edits))
        for number, i in enumerate(chunk):
            for site, vector in zip(sites, vectors[number], strict=True):
                found[site][i] = vector.detach()
    return Optimised(found, start, losses)


def _steps(subject: Subject, edits: _Edits, norms: torch.Tensor, settings: Settings, way: Any) -> np.ndarray:
    """Run the steps of some edits, each on its own, and return their losses [steps, edits]."""
    losses = np.full((settings.steps, len(edits.vectors)), np.nan)
    optimiser = torch.optim.Adam([vector for own in edits.vectors for vector in own], lr=settings.rate)
    alive = list(range(len(edits.vectors)))
    for step in range(settings.steps):
        check_cancelled()
        optimiser.zero_grad()
        with torch.enable_grad():
            logits = way.logits(edits.of(alive))
            parts = {i: _loss(edits, i, logits, norms[i], settings) for i in alive}
            total = torch.stack(list(parts.values())).sum()
            if not bool(torch.isfinite(total)):
                raise EditError(
                    f"The loss of the values for {edits.wordings[0].fact.text!r} became NaN or infinite at step {step} "
                    "and nothing was changed; load the model in float32, or take a smaller rate."
                )
            total.backward()
        subject.count(backwards=len(edits.of(alive)))
        for i, loss in parts.items():
            losses[step, i] = float(loss.detach())
            if losses[step, i] < settings.enough:
                alive.remove(i)
                for vector in edits.vectors[i]:
                    vector.grad = None  # Adam leaves it where it is
        if not alive or step == settings.steps - 1:  # the last loss is that of the vectors returned
            break
        optimiser.step()
        _clamp(edits, alive, norms, settings.clamp)
    return losses


@torch.no_grad()
def _clamp(edits: _Edits, alive: Sequence[int], norms: torch.Tensor, clamp: float) -> None:
    for i in alive:
        for vector, norm in zip(edits.vectors[i], norms[i], strict=True):
            vector.mul_((clamp * norm / vector.norm().clamp(min=1e-30)).clamp(max=1.0))


def _loss(
    edits: _Edits, i: int, logits: dict[int, torch.Tensor], norms: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Return an edit's loss, out of the logits [places, vocabulary] of its rows."""
    *rows, essence = edits.of([i])
    likelihoods = []
    for number in rows:
        target = torch.tensor(edits.rows[number].target, device=logits[number].device)
        likelihoods.append(-logits[number].log_softmax(-1).gather(-1, target[:, None]).mean())
    likelihood = torch.stack(likelihoods).mean()
    now = logits[essence][0].log_softmax(-1)
    if len(edits.before) == i:
        edits.before.append(now.detach())  # the vectors are still zero
    drift = (now.exp() * (now - edits.before[i])).sum()
    sizes = [vector.norm() / norm**2 for vector, norm in zip(edits.vectors[i], norms, strict=True) if norm > 0]
    decay = torch.stack(sizes).sum().to(likelihood) if sizes else torch.zeros_like(likelihood)
    return likelihood + settings.essence * drift + settings.decay * decay


@torch.no_grad()
def _start(subject: Subject, sites: Sequence[str], wordings: Sequence[Wordings]) -> dict[str, torch.Tensor]:
    """Return the values at the subject's last token, without prefix: per site [edits, dimension], float32 or wider."""
    rows = [one.rows[0] for one in wordings]
    output = forward(subject, [Row(row.ids) for row in rows], capture=list(sites), stop=True)
    wide = torch.float64 if subject.dtype == "float64" else torch.float32
    return {
        site: torch.stack([output.row(site, i)[row.position] for i, row in enumerate(rows)]).to(wide) for site in sites
    }


def _chunks(wordings: Sequence[Wordings]) -> Iterator[list[int]]:
    """Cut edits into groups whose rows make one batch."""
    chunk: list[int] = []
    tokens = 0
    for i, one in enumerate(wordings):
        own = sum(len(row.ids) for row in (*one.rows, one.essence))
        if chunk and tokens + own > 2 * TOKENS_PER_BATCH:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(i)
        tokens += own
    if chunk:
        yield chunk


class _Plain:
    """Every row as a full forward, with the vectors as edits of the activations."""

    def __init__(self, subject: Subject, sites: Sequence[str], edits: _Edits) -> None:
        self.subject, self.sites, self.edits = subject, sites, edits

    def logits(self, rows: Sequence[int]) -> dict[int, torch.Tensor]:
        """Return the logits [places, vocabulary] of some rows by their number."""
        batch = []
        for number in rows:
            row, own = self.edits.rows[number], self.edits.vectors[self.edits.owners[number]]
            where = {"position": row.position}
            made = [Edit(site, "add", vector, where) for site, vector in zip(self.sites, own, strict=True)]
            batch.append(Row(row.ids, edits=tuple(made)))
        most = max(len(self.edits.rows[number].places) for number in rows)
        places = [(*self.edits.rows[n].places, *[0] * (most - len(self.edits.rows[n].places))) for n in rows]
        found = forward(self.subject, batch, grad=True, wanted=torch.tensor(places)).logits
        wide = found if found.dtype == torch.float64 else found.float()
        return {n: wide[i, : len(self.edits.rows[n].places)] for i, n in enumerate(rows)}


class _Cached:
    """Rows from the layer and the subject's last token on, behind kept keys and values."""

    def __init__(self, subject: Subject, sites: Sequence[str], edits: _Edits) -> None:
        self.subject, self.sites, self.edits = subject, sites, edits
        layer = int(parse_site(sites[0]).layer or 0)
        stack = subject.need_layout().stacks[""]
        parts = {parse_site(site).part for site in sites}
        # What is added to the stream itself needs no work of its own block.
        self.direct = stack.norm == "pre" and parts <= {"mlp.out", "resid_post"} and len(parts) == 1
        self.scale = stack.residual_scale if parts == {"mlp.out"} else 1.0
        self.blocks = blocks_of(subject)
        self.entry = layer + self.direct
        self.past, self.stream, self.parts = self._base()

    def _base(self) -> tuple[Past, torch.Tensor, int]:
        """Run all rows once and keep their keys, values and the stream [rows, positions, dimension] at the entry."""
        kept: list[torch.Tensor] = []
        shapes: list[int] = []
        rows = self.edits.rows

        def enter(args: Any, kwargs: Any) -> Any:
            kept.append(first_input(args, kwargs)[0].reshape(len(rows), -1, first_input(args, kwargs)[0].shape[-1]))
            return args, kwargs

        def leave(output: Any) -> Any:
            shapes.append(parts_of(output))
            if self.entry == len(self.blocks):
                kept.append(unwrap(output, 0))
            return output

        hooks = [Hook(self.blocks[-1], "output", leave)]
        if self.entry < len(self.blocks):
            hooks.append(Hook(self.blocks[self.entry], "input", enter))
        nothing = (torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
        tails, keep = [Tail(0, 0, row.ids) for row in rows], range(len(rows))
        past = continue_rows(self.subject, None, tails, nothing, keep, lambda _: None, [hooked(hooks)])
        assert past is not None
        self.subject.count(forwards=len(rows))
        return past, kept[0].detach(), shapes[0]

    def logits(self, rows: Sequence[int]) -> dict[int, torch.Tensor]:
        """Return the logits [places, vocabulary] of some rows by their number."""
        every, own = self.edits.rows, self.edits.vectors
        starts = [every[n].position for n in rows]
        width = max(len(every[n].ids) - every[n].position for n in rows)
        index = torch.tensor(starts)[:, None] + torch.arange(width)[None]
        index = index.clamp(max=self.stream.shape[1] - 1).to(self.stream.device)
        hidden = self.stream[torch.tensor(list(rows), device=index.device)[:, None], index]
        inside = [bypassed(self.blocks[: self.entry], self.parts)]
        if self.direct:
            added = torch.stack([own[self.edits.owners[n]][0] for n in rows])
            first = hidden[:, :1] + (self.scale * added[:, None]).to(hidden)
            hidden = torch.cat([first, hidden[:, 1:]], 1)
        inside.append(hooked([self._enter(hidden), *([] if self.direct else self._hooks(rows))]))
        ends = [(i, at - every[n].position) for i, n in enumerate(rows) for at in every[n].places]
        tails = [Tail(n, every[n].position, every[n].ids[every[n].position :]) for n in rows]
        wanted = (torch.tensor([i for i, _ in ends]), torch.tensor([at for _, at in ends]))
        read: list[torch.Tensor] = []
        last = self.entry < len(self.blocks) and not (self.entry == len(self.blocks) - 1 and not self.direct)
        continue_rows(self.subject, self.past, tails, wanted, [], read.append, inside, last=last, grad=True)
        self.subject.count(forwards=len(rows))
        wide = read[0] if read[0].dtype == torch.float64 else read[0].float()
        sizes = [len(every[n].places) for n in rows]
        return dict(zip(rows, wide.split(sizes), strict=True))

    def _enter(self, hidden: torch.Tensor) -> Hook:
        if self.entry < len(self.blocks):
            return Hook(self.blocks[self.entry], "input", put_in(hidden))
        return Hook(self.blocks[-1], "output", lambda output: rewrap(output, 0, hidden))

    def _hooks(self, rows: Sequence[int]) -> list[Hook]:
        batch = []
        for n in rows:
            row, vectors = self.edits.rows[n], self.edits.vectors[self.edits.owners[n]]
            made = [
                Edit(site, "add", vector, {"position": 0}) for site, vector in zip(self.sites, vectors, strict=True)
            ]
            batch.append(Row(row.ids[row.position :], edits=tuple(made)))
        return tail_hooks(self.subject, batch)
