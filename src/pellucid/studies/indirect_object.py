"""Indirect object identification: which heads move the name that receives, which keep the giver's name out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from pellucid.core.errors import InputError
from pellucid.core.metadata import study
from pellucid.core.params import Count, Positive
from pellucid.core.results import Explanation, Result, Scores, Table
from pellucid.engine.capture import capture
from pellucid.methods.patching.ablation import ablation
from pellucid.methods.patching.activation_patching import activation_patching
from pellucid.models.subject import Subject
from pellucid.studies._circuit import judged
from pellucid.studies._means import Part, agreement, mean_of, named, standing_out
from pellucid.studies._paths import MOST, steps_back, straight_to_logits, written_by_heads
from pellucid.studies._report import circuit_graph, report, stopped
from pellucid.studies._trials import ASKED_LEAST, Trial, ability, changed_places, need_decoder, one_token_words
from pellucid.zoo import lexicon

STORIES = (
    "When {x} and {y} went to the {place}, {giver} gave a {thing} to",
    "Then, {x} and {y} went to the {place}. {giver} gave a {thing} to",
    "After {x} and {y} left the {place}, {giver} offered a {thing} to",
    "While {x} and {y} were working at the {place}, {giver} sent a {thing} to",
)
TITLE = "Indirect object identification"
ASKED = "the name that receives rather than the name that gives"
RECEIVERS = 2
ROLES = ("name movers", "steering them", "before those")


@study(
    rows=("MEC-2",),
    paper="arXiv:2211.00593",
    takes="models",
    produces="explanation",
    needs=("activations", "attention", "gradients", "weights"),
    cost="pairs*40*layers*(heads+1)*F+pairs*B",
)
def indirect_object(
    subject: Subject, *, pairs: Positive = 12, templates: Sequence[str] = STORIES,
    names: Sequence[str] = lexicon.FIRST_NAMES, places: Sequence[str] = lexicon.PLACES,
    things: Sequence[str] = lexicon.OBJECTS, seed: Count = 0,
) -> Explanation:  # fmt: skip
    """Find the heads that tell who receives: name movers, the heads that steer them, and what feeds those.

    Prompts name two people and then the giver; the target is the logit of the receiver less that of the giver.
    Corrupted prompts have three other names. Heads whose corrupted output, sent straight to the logits, costs the
    target are name movers; those that cost it through the movers' queries, keys or values steer them (in the paper
    S-inhibition heads, through queries); a third step goes through the inputs of these. Path patching is in the
    paper's direction (corrupted into clean), the sign turned so that positive means that a head raises the target.
    Exact for the prompts drawn, with paired intervals (Wang et al. 2022, arXiv:2211.00593).

    Args:
        subject: the model, from `pellucid.load`; a pre-norm causal language model.
        pairs: prompts, each with its corrupted form.
        templates: sentences with {x}, {y} (the two people), {giver}, {place} and {thing}, up to the answer; a name may
            not begin one.
        names: of people; those that are one token are used.
        places: words for {place}.
        things: words for {thing}.
        seed: of the draw.

    Returns:
        Explanation: pictures of heads, a table of roles, the circuit as a graph, its faithfulness, completeness and
        minimality; where the model cannot do the task, one sentence and no picture.

    Raises:
        InputError: fewer than five names of one token, or a template that does not line up.
        CapabilityError: a model that is no causal language model with a tokenizer.
    """
    need_decoder(subject, "indirect_object")
    ids = one_token_words(subject, names, "names", 5)
    trials = _trials(subject, ids, templates, places, things, max(pairs, ASKED_LEAST), seed)
    found = ability(subject, trials, "choice", 0.5, "indirect object identification")
    if not found.able:
        return stopped(subject, TITLE, trials[0], ASKED, found)
    trials = trials[:pairs]
    direct = written_by_heads(subject, trials, "What each head writes towards the receiver's name")
    straight = straight_to_logits(subject, trials, "What each head sends straight to the logits")
    movers = standing_out(straight, share=0.1, most=MOST, pairs=pairs)
    roles, tiers, routes = steps_back(subject, trials, straight, movers, ROLES, RECEIVERS)
    removed, restored = _total(subject, trials)
    results: list[Result] = [straight, direct, *routes, removed, restored]
    checks = [
        found.evidence,
        agreement(direct.values, straight.values, ("direct attribution", "path patching"), max(1, len(movers))),
        agreement(removed.values, restored.values, ("mean ablation", "activation patching"),
                  max(3, sum(map(len, roles.values())))),
    ]  # fmt: skip
    if movers:
        table, faithful = judged(
            subject, trials, {role: list(parts) for role, parts in roles.items()}, "logit difference"
        )
        results = [circuit_graph(tiers, straight.unit, RECEIVERS), _attention(subject, trials, roles), *results, table]
        checks.insert(1, faithful)
    return report(subject, TITLE, trials[0], ASKED, notes=_notes(roles), results=results, evidence=checks)


def _trials(
    subject: Subject, ids: dict[str, int], templates: Sequence[str], places: Sequence[str], things: Sequence[str],
    pairs: int, seed: int,
) -> list[Trial]:  # fmt: skip
    rng, found = random.Random(seed), list[Trial]()
    for number in range(pairs):
        form = number % len(templates)
        x, y, *other = rng.sample(sorted(ids), 5)
        giver, receiver = rng.sample((x, y), 2)
        words = {"place": rng.choice(list(places)), "thing": rng.choice(list(things))}
        try:
            clean = templates[form].format(x=x, y=y, giver=giver, **words)
            corrupt = templates[form].format(x=other[0], y=other[1], giver=other[2], **words)
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"The template {templates[form]!r} cannot be filled ({error}); use {{x}}, {{y}}, {{giver}}, {{place}} "
                "and {thing}."
            ) from None
        trial = Trial(clean, corrupt, (ids[receiver],), (ids[giver],), form)
        differ = changed_places(subject, trial)
        if len(differ) != 3:
            raise InputError(
                f"The prompt {clean!r} and its corrupted form differ at {len(differ)} tokens, not at three names; let "
                "a space stand before each name of the template."
            )
        first, second, again = differ
        named_places = {"IO": second if giver == x else first, "S1": first if giver == x else second, "S2": again}
        found.append(Trial(clean, corrupt, trial.right, trial.wrong, form, named_places))
    return found


def _total(subject: Subject, trials: Sequence[Trial]) -> tuple[Scores, Scores]:
    """Return the total effect of each head by two independent methods: removed, and put back."""
    references = [trial.corrupt for trial in trials[:8]]
    removed = [ablation(subject, trial.clean, references=references, **trial.answer) for trial in trials]
    back = [
        activation_patching(subject, trial.clean, corrupt=trial.corrupt, site="attn.z", **trial.answer)
        for trial in trials
    ]
    summed = [Scores(values=one.values.sum(2), axes=("layer", "head"), unit=one.unit, sign=one.sign) for one in back]
    return (
        mean_of(removed, "What the target loses without each head",
                "Each head gives its mean over corrupted prompts at all positions; paths of every length count."),
        mean_of(summed, "What each head brings back into the corrupted prompt",
                "The head's clean output is put in, summed over positions; paths of every length count."),
    )  # fmt: skip


def _attention(subject: Subject, trials: Sequence[Trial], roles: dict[str, dict[Part, str]]) -> Table:
    """Say through what the heads of each role act, and where they look."""
    sites = [f"blocks.{layer}.attn.pattern" for layer in range(subject.layers)]
    seen = [capture(subject, trial.clean, sites) for trial in trials]
    alike = [number for number, trial in enumerate(trials) if trial.form == trials[0].form]
    pieces = subject.encode(trials[0].clean).pieces
    rows = []
    for role, parts in roles.items():
        for (layer, head), way in parts.items():
            patterns = [one[sites[layer]][head].cpu().numpy() for one in seen]
            looks = [
                [pattern[place, trial.places[key]] for place, key in
                 ((-1, "IO"), (-1, "S1"), (-1, "S2"), (trial.places["S2"], "S1"))]
                for pattern, trial in zip(patterns, trials, strict=True)
            ]  # fmt: skip
            most = int(np.mean([patterns[number][-1] for number in alike], 0).argmax())
            shares = [round(float(share), 3) for share in np.mean(looks, 0)]
            rows.append((f"{layer}.{head}", role, way, *shares, f"{pieces[most].strip()} ({most})"))
    columns = ("head", "role", "acts through", "last token to IO", "to S1", "to S2", "S2 to S1", "last token mostly to")
    return Table(title="The heads found, and where they look (share of attention)", columns=columns, rows=tuple(rows))


def _notes(roles: dict[str, dict[Part, str]]) -> list[str]:
    if not roles["name movers"]:
        return ["No head alone sends the receiver's name to the logits; the task is done by other parts."]
    said = [
        f"Heads that write the receiver's name at the last token (name movers): {named(list(roles['name movers']))}."
    ]
    for role, words in (("steering them", "Heads that steer those"), ("before those", "Heads before these")):
        ways = [f"{layer}.{head} (through {way})" for (layer, head), way in roles.get(role, {}).items()]
        said.append(f"{words}: {', '.join(ways) or 'none'}.")
    return [*said, "In the paper's GPT-2 the second are S-inhibition heads, which act through queries, and the third "
            "duplicate-token and induction heads, which act through values."]  # fmt: skip
