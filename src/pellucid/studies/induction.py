"""Induction: which heads find the token that followed last time, and which heads let them find it."""

from __future__ import annotations

import random

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import study
from pellucid.core.params import Count, Positive
from pellucid.core.results import Evidence, Explanation, Result, Scores, Table
from pellucid.engine.head_patterns import patterns
from pellucid.methods.attention.head_roles import head_roles
from pellucid.methods.patching.ablation import ablation
from pellucid.models.subject import Subject
from pellucid.studies._circuit import scores_with_only
from pellucid.studies._means import Part, agreement, mean_of, named, standing_out
from pellucid.studies._paths import MOST, steps_back, straight_to_logits, written_by_heads
from pellucid.studies._report import circuit_graph, report, stopped
from pellucid.studies._trials import ASKED_LEAST, Trial, ability, need_decoder

TITLE = "Induction on repeated random tokens"
ASKED = "the token that followed the last token where it stood before"
RANDOM_SETS = 20
RECEIVERS, LEAST, FURTHEST = 4, 0.1, 8  # heads; share of attention; places behind the earlier occurrence


@study(
    rows=("MEC-7",),
    paper="arXiv:2209.11895",
    takes="models",
    produces="explanation",
    needs=("activations", "attention", "gradients", "weights"),
    cost="pairs*30*layers*(heads+1)*F+pairs*B",
)
def induction(subject: Subject, *, pairs: Positive = 12, length: Positive = 12, seed: Count = 0) -> Explanation:
    """Find the induction heads of a model and the heads they are built on, on random tokens that are repeated.

    A prompt is random tokens and a beginning of the same again; the target is the token that comes next, less another
    one of them. In the corrupted prompt the last token's first occurrence is another token. An induction head attends
    to what followed that occurrence (prefix matching) and writes it to the logits (copying); one is named where both
    the attention pattern and patching its path to the logits find it. Heads that act through its keys come before it.
    The check removes them together, against random heads. Exact for the prompts drawn, with paired intervals (Olsson et
    al. 2022, arXiv:2209.11895).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        pairs: prompts, each with its corrupted form.
        length: random tokens before they repeat; fewer where the model takes fewer.
        seed: of the draw.

    Returns:
        Explanation: pictures of heads, a table of roles, the circuit as a graph; where the model cannot do the task,
        one sentence and no picture.

    Raises:
        InputError: a vocabulary or context too small to repeat three tokens.
        CapabilityError: a model that is no causal language model with a tokenizer.
    """
    need_decoder(subject, "induction")
    trials, sequences, mixed = _trials(subject, max(pairs, ASKED_LEAST), length, seed)
    found = ability(subject, trials, "choice", 0.5, "repeated random tokens")
    if not found.able:
        return stopped(subject, TITLE, trials[0], ASKED, found)
    trials, sequences, mixed = trials[:pairs], sequences[:pairs], mixed[:pairs]
    matching, offsets = _matching(subject, sequences, mixed)
    looks = head_roles(subject, sequences[0], others=sequences[1:])
    straight = straight_to_logits(subject, trials, "What each head sends straight to the logits (copying)")
    direct = written_by_heads(subject, trials, "What each head writes towards the repeated token")
    removed = mean_of(
        [ablation(subject, trial.clean, references=mixed, **trial.answer) for trial in trials],
        "What the target loses without each head", "Each head gives its mean over random tokens that do not repeat.",
    )  # fmt: skip
    senders = standing_out(straight, share=0.1, most=MOST, pairs=pairs)
    heads = [part for part in senders if matching.values[part] >= max(LEAST, matching.values.max() / 3)]
    roles, tiers, routes = steps_back(subject, trials, straight, heads, ("induction", "before them"), RECEIVERS)
    pictures: list[Result] = [matching, straight, direct, *routes]
    checks = [
        found.evidence,
        agreement(matching.values, straight.values, ("prefix matching", "path patching"), max(1, len(heads))),
        agreement(direct.values, straight.values, ("direct attribution", "path patching"), max(1, len(heads))),
    ]  # fmt: skip
    if heads:
        checks.append(_against_random(subject, trials, [part for parts in roles.values() for part in parts], seed))
        pictures.insert(0, _table(roles, offsets, looks, straight, removed))
        pictures.insert(0, circuit_graph(tiers, straight.unit, RECEIVERS))
    notes = _notes(roles, offsets)
    return report(subject, TITLE, trials[0], ASKED, notes=notes, results=[*pictures, removed], evidence=checks)


def _trials(
    subject: Subject, pairs: int, length: int, seed: int
) -> tuple[list[Trial], list[list[int]], list[list[int]]]:
    """Return the trials, whole repeated sequences, and sequences of the same length that do not repeat."""
    start = [i for i, special in zip(*_first(subject), strict=True) if special]
    tokenizer = subject.tokenizer
    special = {*tokenizer.all_special_ids, getattr(tokenizer, "unk_token_id", None)}
    pool = [i for i in range(min(subject.vocabulary, len(tokenizer))) if i not in special]
    room = (subject.max_length or 10**9) - len(start)
    length = min(length, (room + 1) // 2, len(pool) // 2)
    if length < 3:
        raise InputError(
            f"Induction repeats at least three random tokens, but {subject.name} has {len(pool)} ordinary tokens and "
            f"takes {room} at a time; use a larger model."
        )
    rng, trials, sequences, mixed = random.Random(seed), list[Trial](), list[list[int]](), list[list[int]]()
    ends = sorted({1, length // 2, length - 1})
    for number in range(pairs):
        *half, other = rng.sample(pool, length + 1)
        end = ends[number % len(ends)]
        last, answer = half[end - 1], half[end]
        wrong = rng.choice([token for token in half if token not in (last, answer)])
        corrupt = [other if token == last else token for token in half]
        trials.append(Trial([*start, *half, *half[:end]], [*start, *corrupt, *half[:end]], (answer,), (wrong,), end))
        sequences.append([*start, *half, *half[: room - length]])
        mixed.append([*start, *rng.sample(pool, len(sequences[-1]) - len(start))])
    return trials, sequences, mixed


def _first(subject: Subject) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    tokens = subject.encode("a")
    return tokens.ids, tokens.special


def _matching(subject: Subject, sequences: list[list[int]], mixed: list[list[int]]) -> tuple[Scores, np.ndarray]:
    """Return each head's attention behind the earlier occurrence, at its best distance, and that distance.

    What the same places get where nothing repeats is taken off, so that heads which look at fixed distances count 0.
    """
    found = [_behind(subject, one) for one in sequences]
    null = [_behind(subject, one) for one in mixed]
    gain = np.mean(found, 0) - np.mean(null, 0)
    best = gain.argmax(0)
    values, offsets = gain.max(0), best + 1
    words = tuple(f"{value:.2f} (+{offset})" for value, offset in zip(values.ravel(), offsets.ravel(), strict=True))
    says = (
        "The share of attention on the token so many places (+1, +2, ...) behind the earlier occurrence of the same "
        "token, "
        "at the distance where it is largest, less what the same place gets where nothing repeats."
    )
    return Scores(
        title="Attention behind the earlier occurrence (prefix matching)", values=values, axes=("layer", "head"),
        unit="share of attention", sign="larger means more of it", words=words,
        evidence=(Evidence("what it shows", says),),
    ), offsets  # fmt: skip


def _behind(subject: Subject, ids: list[int]) -> np.ndarray:
    """Return the mean attention of the second half to what stands 1, 2, ... places behind its partner."""
    tokens = subject.encode(ids)
    first = sum(tokens.special)
    length = (len(ids) - first + 1) // 2
    queries = np.arange(first + length, len(ids))
    pattern = np.stack(list(patterns(subject, tokens).values()))
    shifts = range(1, min(FURTHEST, length - 1) + 1)
    return np.stack([pattern[:, :, queries, queries - length + shift].mean(-1) for shift in shifts])


def _table(
    roles: dict[str, dict[Part, str]], offsets: np.ndarray, looks: Scores, straight: Scores, removed: Scores
) -> Table:
    names = looks.labels["part"]
    shares = {name: looks.values[names.index(name)] for name in ("previous", "duplicate") if name in names}
    rows = [
        (f"{layer}.{head}", role, way, f"+{offsets[layer, head]}" if role == "induction" else "",
         *(round(float(grid[layer, head]), 3) for grid in (*shares.values(), straight.values, removed.values)))
        for role, parts in roles.items() for (layer, head), way in parts.items()
    ]  # fmt: skip
    shown = (*(f"attention to {name} token" for name in shares), "straight to logits", "ablation")
    return Table(
        title="The heads found", columns=("head", "role", "acts through", "looks behind by", *shown), rows=tuple(rows)
    )


def _against_random(subject: Subject, trials: list[Trial], parts: list[Part], seed: int) -> Evidence:
    """Remove the heads found together, and as many random other heads."""
    heads = subject.need_layout().stacks[""].heads.query
    every = frozenset((layer, head) for layer in range(subject.layers) for head in range(heads))
    rest, rng = sorted(every - set(parts)), random.Random(seed)
    drawn = [frozenset(rng.sample(rest, min(len(parts), len(rest)))) for _ in range(RANDOM_SETS)] if rest else []
    whole, without, *others = scores_with_only(
        subject, trials, [every, every - set(parts), *(every - one for one in drawn)]
    )
    worst = min(others, default=float(whole))
    return Evidence(
        "removed together, against random heads",
        f"Without the {len(parts)} heads found the target falls from {whole:.3g} to {without:.3g}; without as many "
        f"random "
        f"others it stays at {np.mean(others or [whole]):.3g} on average, at least {worst:.3g} in {len(others)} draws.",
        {"whole": float(whole), "without": float(without), "random": float(np.mean(others or [whole])),
         "random_lowest": float(worst)},
        ok=bool(without < worst),
    )  # fmt: skip


def _notes(roles: dict[str, dict[Part, str]], offsets: np.ndarray) -> list[str]:
    heads = list(roles["induction"])
    if not heads:
        return ["No head both attends behind the earlier occurrence and sends the repeated token to the logits; other "
                "parts do the task."]  # fmt: skip
    before = [f"{layer}.{head} (through {way})" for (layer, head), way in roles.get("before them", {}).items()]
    far = sorted({int(offsets[part]) for part in heads})
    said = f"They look {' or '.join(map(str, far))} place{'s' if far != [1] else ''} behind the earlier occurrence"
    return [
        f"Induction heads, found by their attention and by patching: {named(heads)}.",
        said + ("." if far == [1] else ", not at the very next token: heads before them have moved the answer there."),
        f"Heads they are built on: {', '.join(before) or 'none'}; in the paper previous-token heads, through keys.",
    ]
