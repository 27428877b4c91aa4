"""Paths through the residual stream: what each part sends into it, and what one part receives from it.

In a pre-norm model a part (head, feed-forward layer) reads the sum of what all parts below wrote. So a path from one
part to another is that sum with one summand exchanged, seen by the receiver alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from pellucid.core.axes import Site
from pellucid.core.errors import CapabilityError, InputError, ModelError
from pellucid.core.tokens import Tokens
from pellucid.engine.capture import capture
from pellucid.engine.cone_rows import blocks_of, put_in
from pellucid.engine.planning import in_batches
from pellucid.engine.transformed import projected
from pellucid.engine.variants import row, whole
from pellucid.models.edits import Edit
from pellucid.models.forward import forward
from pellucid.models.hooks import Hook, bypassed, hooked, parts_of
from pellucid.models.layout import depth, place

if TYPE_CHECKING:
    from pellucid.models.subject import Subject

Through = Literal["direct", "mlps", "all"]


class Sender(NamedTuple):
    """A part that writes into the stream: the embedding (layer -1), a head, or (head -1) a feed-forward layer."""

    layer: int
    head: int


@dataclass(frozen=True)
class Receiver:
    """A part that reads the stream: a head (`inputs` some of "qkv"), a feed-forward layer (head -1) or the logits.

    For the logits `layer` is the number of blocks.
    """

    layer: int
    head: int = -1
    inputs: str = "qkv"


def receiver_of(subject: Subject, name: str) -> Receiver:
    """Read "logits", "blocks.3.mlp", "blocks.3.attn.1" or "blocks.3.attn.1.q" (k, v).

    Raises:
        CapabilityError: a model whose parts do not add up in one stream.
        InputError: a part that the model lacks.
    """
    layout = subject.need_layout()
    if "" not in layout.stacks or layout.stacks[""].norm == "post" or layout.stacks[""].shared:
        raise CapabilityError(
            f"Paths add up in the residual stream of a one-stack pre-norm model, which {layout.architecture} is not; "
            "use activation_patching."
        )
    depth_, heads = depth(subject.model, layout), layout.stacks[""].heads.query
    if name == "logits":
        return Receiver(depth_)
    parts = name.split(".")
    fits = len(parts) in (3, 4, 5) and parts[0] == "blocks" and parts[1].isdigit() and int(parts[1]) < depth_
    if fits and parts[2:] == ["mlp"]:
        return Receiver(int(parts[1]))
    if fits and parts[2] == "attn" and len(parts) > 3 and parts[3].isdigit() and int(parts[3]) < heads:
        inputs = parts[4] if len(parts) == 5 else "qkv"
        if inputs in ("q", "k", "v", "qkv"):
            return Receiver(int(parts[1]), int(parts[3]), inputs)
    raise InputError(
        f"The receiver {name!r} is unknown; use 'logits', 'blocks.L.mlp', 'blocks.L.attn.H' or 'blocks.L.attn.H.q' (k, "
        f"v), with L from 0 to {depth_ - 1} and H from 0 to {heads - 1}."
    )


def senders_to(subject: Subject, receiver: Receiver) -> list[Sender]:
    """Return all parts whose output the receiver reads, bottom up, the embedding first."""
    stack = subject.need_layout().stacks[""]
    found = [Sender(-1, -1)]
    for layer in range(receiver.layer):
        found += [*(Sender(layer, head) for head in range(stack.heads.query)), Sender(layer, -1)]
    same_block = receiver.head < 0 and receiver.layer < depth(subject.model, subject.need_layout())
    if same_block and not stack.parallel:
        found += [Sender(receiver.layer, head) for head in range(stack.heads.query)]
    return found


class Runs:
    """A clean and a corrupted run, kept where parts write: `changes` gives what a sender would write otherwise."""

    def __init__(self, subject: Subject, good: Tokens, bad: Tokens) -> None:
        self.subject, self.bad = subject, bad
        stack, self.depth = subject.need_layout().stacks[""], subject.layers
        self.raw = "attn.out_raw" if "attn.out_raw" in stack.taps else "attn.out"
        self.parts = ["resid_pre", "attn.z", self.raw, "mlp.out"]
        names = [str(Site("", layer, part)) for layer in range(self.depth) for part in self.parts]
        names += [str(Site("", self.depth - 1, "resid_post"))]
        names += [] if stack.parallel else [str(Site("", layer, "resid_mid")) for layer in range(self.depth)]
        self.corrupt = capture(subject, bad, names)
        self.good = self.corrupt if good is bad else capture(subject, good, names)
        self.scale, self.parallel = stack.residual_scale, stack.parallel
        self.weights: dict[int, torch.Tensor] = {}

    def stream(self, receiver: Receiver) -> str:
        """Return the site of the stream that a receiver reads."""
        if receiver.layer == self.depth:
            return str(Site("", self.depth - 1, "resid_post"))
        middle = receiver.head < 0 and not self.parallel
        return str(Site("", receiver.layer, "resid_mid" if middle else "resid_pre"))

    @torch.no_grad()
    def change(self, sender: Sender) -> torch.Tensor:
        """Return what the sender adds to the stream in the clean run less what it adds in the corrupted one.

        [position, dimension]. A head's share goes through the output projection, and through the norm behind it beside
        the corrupted shares of the other heads.
        """
        if sender.layer < 0:
            return self._moved("blocks.0.resid_pre")
        if sender.head < 0:
            return self.scale * self._moved(str(Site("", sender.layer, "mlp.out")))
        raw = self.corrupt[str(Site("", sender.layer, self.raw))]
        moved = self._moved(str(Site("", sender.layer, "attn.z")))
        moved = moved[:, sender.head] @ self._projection(sender.layer)[sender.head]
        if self.raw == "attn.out":
            return self.scale * moved
        norm = place(self.subject.model, self.subject.need_layout(), Site("", sender.layer, "attn.out")).module
        pair: torch.Tensor = norm(torch.stack([raw, raw + moved]))
        return self.scale * (pair[1] - pair[0])

    @torch.no_grad()
    def written(self, sender: Sender) -> torch.Tensor:
        """Return what the sender adds to the stream in the clean run, biases of the output projection left out."""
        if sender.layer < 0:
            return self.good["blocks.0.resid_pre"]
        if sender.head < 0:
            return self.scale * self.good[str(Site("", sender.layer, "mlp.out"))]
        return self.projected(sender, self.good[str(Site("", sender.layer, "attn.z"))][:, sender.head])

    def projected(self, sender: Sender, mix: torch.Tensor) -> torch.Tensor:
        """Return what a head adds to the stream for its mix of values [position, width]; no norm stands in between."""
        return self.scale * (mix @ self._projection(sender.layer)[sender.head])

    def _moved(self, name: str) -> torch.Tensor:
        return self.good[name] - self.corrupt[name]

    def _projection(self, layer: int) -> torch.Tensor:
        """Return the output projection of a layer: [head, width, dimension]."""
        if layer not in self.weights:
            z = self.corrupt[str(Site("", layer, "attn.z"))]
            module = place(self.subject.model, self.subject.need_layout(), Site("", layer, "attn.z")).module
            weight, _ = projected(module, z[0].numel(), self.corrupt[str(Site("", layer, self.raw))])
            self.weights[layer] = weight.view(z.shape[1], z.shape[2], -1)
        return self.weights[layer]

    def held(self, sender: Sender, receiver: Receiver, through: Through) -> tuple[Edit, ...]:
        """Return the edits that send the clean value, and keep at corrupted values what is no part of the path."""
        place_ = list(range(len(self.bad)))
        if sender.layer < 0:
            edits = [self._edit("blocks.0.resid_pre", self.good, {"position": place_})]
        elif sender.head < 0:
            edits = [self._edit(str(Site("", sender.layer, "mlp.out")), self.good, {"position": place_})]
        else:
            where = {"position": place_, "head": sender.head}
            edits = [self._edit(str(Site("", sender.layer, "attn.z")), self.good, where)]
        first = 0 if sender.layer < 0 else sender.layer + 1
        last = min(receiver.layer + (receiver.head < 0), self.depth)
        frozen = range(first, last) if through == "mlps" else ()
        return (*edits, *(self._edit(str(Site("", at, self.raw)), self.corrupt, {"position": place_}) for at in frozen))

    def _edit(self, name: str, values: dict[str, torch.Tensor], where: dict[str, Any]) -> Edit:
        return Edit(name, "patch_from", values[name], where)

    def arriving(self, sender: Sender, receiver: Receiver, through: Through) -> torch.Tensor:
        """Return the stream [position, dimension] that the receiver reads if the sender's clean value reaches it."""
        site = self.stream(receiver)
        if through == "direct":
            return self.corrupt[site] + self.change(sender)
        edits = self.held(sender, receiver, through)
        rows = [row(self.subject, self.bad, whole(self.bad), edits=edits)]
        return forward(self.subject, rows, capture=[site], stop=True).row(site, 0)


@torch.no_grad()
def received(runs: Runs, receiver: Receiver, streams: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return what the receiver makes of other streams [position, dimension]: a head's mix or the output of the layer.

    [position, width of a head] for heads, [position, dimension] for feed-forward layers. Blocks below are bypassed and
    the run ends there. Exact.
    """
    before = runs.corrupt[f"blocks.{min(receiver.layer, runs.depth - 1)}.resid_pre"]
    if receiver.head < 0:
        return fed_forward(runs.subject, runs.bad, receiver.layer, streams, [before] * len(streams))
    still = [before] * len(streams)
    given = {part: streams if part in receiver.inputs else still for part in "qkv"}
    return mixed(runs.subject, runs.bad, receiver.layer, receiver.head, given)


@torch.no_grad()
def fed_forward(
    subject: Subject, tokens: Tokens, layer: int, streams: Sequence[torch.Tensor], before: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return the output of a feed-forward layer that reads other streams: [position, dimension] each.

    `before` are any streams in front of its block; parallel blocks read `streams` there.
    """
    parallel = subject.need_layout().stacks[""].parallel
    site = f"blocks.{layer}.mlp.out"
    if parallel:
        return _inside(subject, tokens, layer, streams, [()] * len(streams), site)
    edits = [(Edit(f"blocks.{layer}.resid_mid", "set", stream),) for stream in streams]
    return _inside(subject, tokens, layer, before, edits, site)


@torch.no_grad()
def mixed(
    subject: Subject, tokens: Tokens, layer: int, head: int, streams: Mapping[str, Sequence[torch.Tensor]]
) -> list[torch.Tensor]:
    """Return a head's mix of values [position, width] where its queries, keys and values read streams of their own.

    `streams` has an entry for each of "q", "k" and "v". Exact, also where query heads share keys and values.
    """
    plain, count = streams["v"], len(streams["v"])
    site, heads = f"blocks.{layer}.attn.", subject.need_layout().stacks[""].heads
    edits: list[tuple[Edit, ...]] = [()] * count
    for part in "qk":
        if streams[part] is plain:
            continue
        given = _inside(subject, tokens, layer, streams[part], [()] * count, site + part)
        own = head if part == "q" else head // (heads.query // given[0].shape[1])
        new = [Edit(site + part, "patch_from", value, {"head": own}) for value in given]
        edits = [(*edit, one) for edit, one in zip(edits, new, strict=True)]
    return [value[:, head] for value in _inside(subject, tokens, layer, plain, edits, site + "z")]


def _inside(
    subject: Subject, tokens: Tokens, layer: int, streams: Sequence[torch.Tensor],
    edits: Sequence[tuple[Edit, ...]], site: str,
) -> list[torch.Tensor]:  # fmt: skip
    """Return the values at a site of a block that is given other streams and edits; no other block runs."""
    blocks = blocks_of(subject)
    if any(edit.site in (f"blocks.{layer}.resid_pre", f"blocks.{layer}.resid_mid") for edit in subject.edits):
        raise ModelError(
            f"The model's own edit of the stream in block {layer} would act twice on a path that ends there; leave it "
            "out."
        )
    parts = _parts(subject, tokens)

    def run(batch: list[int]) -> list[torch.Tensor]:
        entry = Hook(blocks[layer], "input", put_in(torch.stack([streams[i] for i in batch])))
        rows = [row(subject, tokens, whole(tokens), edits=edits[i]) for i in batch]
        with subject.lock, bypassed(blocks[:layer], parts), hooked([entry]):
            output = forward(subject, rows, capture=[site], stop=True)
        return [output.row(site, number) for number in range(len(batch))]

    return in_batches(range(len(streams)), [len(tokens)] * len(streams), run)


def _parts(subject: Subject, tokens: Tokens) -> int:
    """Return of how many parts the outputs of this model's blocks consist."""
    key = ("parts of blocks", type(subject.model))
    if key not in subject.state.cache:
        kinds: list[int] = []

        def after(output: Any) -> Any:
            kinds.append(parts_of(output))
            return output

        with subject.lock, subject.uncounted(), hooked([Hook(blocks_of(subject)[0], "output", after)]):
            forward(subject, [row(subject, tokens, whole(tokens))])
        subject.state.cache[key] = kinds[0]
    return int(subject.state.cache[key])
