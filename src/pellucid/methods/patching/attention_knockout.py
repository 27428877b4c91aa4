"""Attention knockout: cut the edges from words to a position in a window of layers and see what the answer loses."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.core.axes import Site
from pellucid.core.errors import InputError
from pellucid.core.metadata import method
from pellucid.core.params import Positive, PromptLike, TargetLike, Unit
from pellucid.core.results import Evidence, Scores
from pellucid.core.targets import Target
from pellucid.engine.capture import capture
from pellucid.engine.knockout import around, cut, score_cuts
from pellucid.engine.patterns import chosen_layers, pattern_sites
from pellucid.engine.question import Question, ask, read_position
from pellucid.models.edits import Edit
from pellucid.models.subject import Subject


@method(
    rows=("TXB-5",),
    paper="arXiv:2304.14767",
    takes="prompt",
    produces="scores",
    axes=("layer", "unit"),
    needs=("attention",),
    cost="(layers*units+4)*F",
)
def attention_knockout(
    subject: Subject, prompt: PromptLike, *, target: TargetLike = None, contrast: int | str | None = None,
    unit: Unit = "token+special", receivers: int | Sequence[int] | None = None, heads: Sequence[int] | None = None,
    window: Positive = 1, relative: bool = False,
) -> Scores:  # fmt: skip
    """Score each layer and unit by what the target loses when the receiver may not attend to the unit there.

    R[l, u] = f(x) - f(x with the attention logits of the edges u -> receivers at -inf in the layers around l); positive
    means that what flows along these edges raises the target. `relative` divides by f(x), which is -(p' - p) / p of the
    paper. Exact: the remaining weights of the softmax share what is left; a receiver that may attend to nothing gets
    nothing from attention (Geva et al. 2023, arXiv:2304.14767).

    Args:
        subject: the model, from `pellucid.load`; for encoder-decoders the cross attention is cut.
        prompt: text, chat or token ids.
        target: what to explain; a plain token is measured by its probability, as in the paper.
        contrast: the alternative to compare with.
        unit: where edges come from: "token+special", "word", ... or token ranges, such as those of a subject; the edges
            from all tokens of a unit are cut together.
        receivers: the positions that edges lead to; None means the one that the output is read from.
        heads: heads that are cut; None means all.
        window: number of layers cut together, around each layer (about a fifth of them in the paper).
        relative: as a share of the target's value.

    Returns:
        Scores [layer, unit].

    Raises:
        InputError: a position or head that is not there.
        TargetError: a target the model does not have.
    """
    asked = target if isinstance(target, Target) or callable(target) else Target(target, measure="prob")
    question = ask(subject, prompt, target=asked, contrast=contrast, unit=unit)
    sites, queries = _edges_into(question, receivers)
    patterns = capture(subject, question.tokens, sites)
    chosen = _heads(heads, len(patterns[sites[0]]))
    seen = {site: pattern[:, queries].amax(0) > 0 for site, pattern in patterns.items()}
    sets: list[tuple[Edit, ...]] = [()]
    for layer in range(len(sites)):
        for start, end in question.units.spans:
            edges = [cut(site, seen[site], queries, range(start, end), chosen) for site in around(sites, layer, window)]
            sets.append(tuple(edit for edits in edges for edit in edits))
    scores = score_cuts(subject, question.tokens, question.readout, sets).sum(1)
    effects = (scores[0] - scores[1:]).reshape(len(sites), len(question.units))
    return Scores(
        title="Attention knockout" + (f", windows of {window} layers" if window > 1 else ""),
        values=effects / scores[0] if relative else effects,
        axes=("layer", "unit"),
        labels={"layer": tuple(str(i) for i in range(len(sites))), "unit": question.units.labels},
        unit=f"share of the {question.readout.unit}" if relative else question.readout.unit,
        sign="positive means that attention to the unit raises the target",
        tokens=question.tokens, units=question.units, target=question.readout.description,
    ).with_evidence(_largest(float(scores[0]), float(effects.max()), question))  # fmt: skip


def _edges_into(question: Question, receivers: int | Sequence[int] | None) -> tuple[list[str], list[int]]:
    """Return the pattern of every layer and the queries that receive."""
    subject = question.subject
    if subject.kind == "encoder-decoder":
        layers = chosen_layers(subject, None, "decoder")
        sites, length = [str(Site("decoder", layer, "cross_attn.pattern")) for layer in layers], 1
        read = 0
    else:
        sites, length, read = pattern_sites(subject), len(question.tokens), read_position(question)
    given = [read] if receivers is None else [receivers] if isinstance(receivers, int) else [int(r) for r in receivers]
    if not given or not all(-length <= r < length for r in given):
        raise InputError(f"Edges into {given} were asked for, but positions that attend are 0 to {length - 1}.")
    return sites, sorted({r % length for r in given})


def _heads(heads: Sequence[int] | None, count: int) -> list[int]:
    chosen = list(range(count)) if heads is None else [int(h) for h in heads]
    if not chosen or not all(0 <= h < count for h in chosen):
        raise InputError(f"Heads {chosen} were asked for, but the model has heads 0 to {count - 1} in each layer.")
    return chosen


def _largest(whole: float, effect: float, question: Question) -> Evidence:
    return Evidence(
        "target",
        f"The target {question.readout.description} scores {whole:.3g} uncut; the strongest cut takes {effect:.3g} "
        "from it.",
        {"uncut": whole, "largest": effect},
    )
