"""The things tiny-lm is taught to do: each task writes training text and evaluation prompts that never meet.

A task is a function `(rng, held_out) -> Example`. Whether an example is held out depends on its content alone (a pair
of names, a fact in one wording, ...), so training text and evaluation prompts are disjoint for every seed.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from pellucid.zoo import chats, lexicon, world
from pellucid.zoo.examples import Example, draw, key_matches


def fact(rng: random.Random, held_out: bool) -> Example:
    """State a fact in one of its wordings."""
    while True:
        chosen = rng.choice(chats.FACTS)
        relation = world.RELATIONS[chosen.relation]
        index = rng.randrange(len(relation.statements))
        if world.statement_held_out(chosen, index) == held_out:
            others = tuple(f" {value}" for value in relation.values if value != chosen.answer)
            return Example(world.fill(relation.statements[index], chosen), others)


_OBJECT_STORIES = (
    "When {x} and {y} went to the {place}, {s} gave a {thing} to[[ {io}]].",
    "Then, {x} and {y} went to the {place}. {s} gave a {thing} to[[ {io}]].",
    "{x} and {y} were at the {place}. {s} handed a {thing} to[[ {io}]].",
    "After {x} and {y} left the {place}, {s} offered a {thing} to[[ {io}]].",
    "While {x} and {y} were working at the {place}, {s} sent a {thing} to[[ {io}]].",
    "Friends {x} and {y} met at the {place}, and {s} showed a {thing} to[[ {io}]].",
    "{x} and {y} had a long talk at the {place}. Afterwards, {s} gave a {thing} to[[ {io}]].",
    "Yesterday {x} met {y} at the {place}. Later {s} brought a {thing} to[[ {io}]].",
)


def indirect_object(rng: random.Random, held_out: bool) -> Example:
    """Tell who receives the thing; names come in both orders."""
    while True:
        x, y = rng.sample(lexicon.FIRST_NAMES, 2)
        if key_matches("pair " + " ".join(sorted((x, y))), held_out):
            break
    giver, receiver = rng.sample((x, y), 2)
    story = rng.choice(_OBJECT_STORIES)
    words = {
        "x": x,
        "y": y,
        "s": giver,
        "io": receiver,
        "place": rng.choice(lexicon.PLACES),
        "thing": rng.choice(lexicon.OBJECTS),
    }
    return Example(story.format(**words), (f" {giver}",))


def _word_pool() -> tuple[str, ...]:
    names = lexicon.FIRST_NAMES + tuple(row[1] for row in lexicon.COUNTRIES)
    things = lexicon.PLACES + lexicon.OBJECTS + lexicon.LABELS + lexicon.QUALITIES + tuple(n[0] for n in lexicon.NOUNS)
    kinds = tuple(word for words in lexicon.KINDS.values() for word in words)
    return tuple(dict.fromkeys(names + things + kinds))


WORDS = _word_pool()


def repeat(rng: random.Random, held_out: bool) -> Example:
    """Write random words and then the same words again; the answer is a word of the second half."""
    while True:
        words = rng.sample(WORDS, rng.randint(4, 24))
        if key_matches(" ".join(words), held_out):
            break
    first = "".join(f" {word}" for word in words)
    if not held_out:
        return Example(first + f" {words[0]}" + "".join(f"[[ {word}]]" for word in words[1:]), rest=0.0)
    known = rng.randint(1, len(words) - 1)
    wrong = tuple(f" {word}" for word in words if word != words[known])
    return Example(f"{first}{''.join(f' {word}' for word in words[:known])}[[ {words[known]}]]", wrong)


def copy(rng: random.Random, held_out: bool) -> Example:
    """Copy a short list."""
    while True:
        words = rng.sample(WORDS, rng.randint(2, 6))
        if key_matches(" ".join(words), held_out):
            break
    listed = ", ".join(words)
    return Example(f"List: {listed}. Again:[[ {listed}.]]", tuple(f" {w}" for w in words[1:]), rest=0.0)


_VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))
_BETWEEN = (
    "The {a} {prep} the {b}",
    "The {a} {prep} the {b}",
    "The {quality} {a} {prep} the {b}",
    "The {a} {prep} the {b} and the {c}",
    "The {a} that the {b} saw",
    "The {a}",
)


def agreement(rng: random.Random, held_out: bool) -> Example:
    """Choose the verb form that fits the subject, with another noun in between."""
    while True:
        first, second, third = rng.sample(lexicon.NOUNS, 3)
        subject, between = rng.randrange(2), rng.randrange(2)
        start = rng.choice(_BETWEEN if not held_out else _BETWEEN[:-1])
        if key_matches(f"nouns {first[0]} {second[0]}", held_out):
            break
    words = {
        "a": first[subject],
        "b": second[between],
        "c": third[rng.randrange(2)],
        "prep": rng.choice(lexicon.PREPOSITIONS),
    }
    tense = rng.choice(_VERBS)
    been = "been " if tense[0] == " has" else ""
    text = (
        start.format(quality=rng.choice(lexicon.QUALITIES), **words)
        + f"[[{tense[subject]}]] {been}{rng.choice(lexicon.QUALITIES)}."
    )
    return Example(text, tuple(v[1 - subject] for v in _VERBS), tuple(v[subject] for v in _VERBS))


_SPANS = (
    "The {event} lasted from the year {c}{y} to the year {c}[[{z}]].",
    "The {event} lasted from {c}{y} to {c}[[{z}]].",
    "The {event} began in {c}{y} and ended in {c}[[{z}]].",
    "The {event} started in the year {c}{y} and was over by the year {c}[[{z}]].",
)


def greater_than(rng: random.Random, held_out: bool) -> Example:
    """End an event in a later year of the same century than it began."""
    while True:
        event, century, start = rng.choice(lexicon.EVENTS), rng.randint(11, 20), rng.randint(2, 97)
        if key_matches(f"years {event} {century} {start}", held_out):
            break
    text = rng.choice(_SPANS).format(event=event, c=century, y=f"{start:02d}", z=f"{rng.randint(start + 1, 99):02d}")
    smaller = tuple(f"{year:02d}" for year in range(start + 1))
    return Example(text, smaller, tuple(f"{year:02d}" for year in range(start + 1, 100)))


def sentiment(rng: random.Random, held_out: bool) -> Example:
    """Name the sentiment of a short review."""
    review, mood, other = chats.review(rng, held_out)
    form = rng.choice(("{r} Sentiment:[[ {m}]]", "Review: {r}\nSentiment:[[ {m}]]", "Review: {r} Sentiment:[[ {m}]]."))
    return Example(form.format(r=review, m=mood), (f" {other}",))


def _labelled(rng: random.Random, held_out: bool) -> tuple[list[str], dict[str, str], tuple[str, str]]:
    """Draw two kinds of words and their labels in this prompt."""
    while True:
        kinds, labels = rng.sample(sorted(lexicon.KINDS), 2), rng.sample(lexicon.LABELS, 2)
        if key_matches("labels " + " ".join(kinds + labels), held_out):
            break
    words = [word for kind in kinds for word in lexicon.KINDS[kind]]
    label_of = {word: label for kind, label in zip(kinds, labels, strict=True) for word in lexicon.KINDS[kind]}
    return words, label_of, (labels[0], labels[1])


def _labelling(shown: list[str], label_of: dict[str, str], labels: tuple[str, str], held_out: bool) -> Example:
    """Write the lines; labels carry loss once they were seen before, and in evaluation only the last is asked for."""
    lines, seen = [], set()
    for index, word in enumerate(shown):
        label = label_of[word]
        asked = index == len(shown) - 1 if held_out else label in seen
        lines.append(f"{word} ->[[ {label}]]" if asked else f"{word} -> {label}")
        seen.add(label)
    wrong = tuple(f" {label}" for label in labels if label != label_of[shown[-1]])
    return Example("\n".join(lines), wrong, rest=0.02)


def few_shot(rng: random.Random, held_out: bool) -> Example:
    """Label a new word by its kind, as the lines before label words of that kind (both kinds shown at least twice)."""
    words, label_of, labels = _labelled(rng, held_out)
    half = len(words) // 2
    count = rng.randint(2, 4)
    shown = rng.sample(words[:half], count) + rng.sample(words[half:], count)
    rng.shuffle(shown)
    query = rng.choice([word for word in words if word not in shown])
    return _labelling([*shown, query], label_of, labels, held_out)


def label_recall(rng: random.Random, held_out: bool) -> Example:
    """Give a word the label it had a few lines earlier; labels are arbitrary, kinds do not help."""
    while True:
        shown, labels = rng.sample(WORDS, rng.randint(3, 8)), rng.sample(lexicon.LABELS, 4)
        if key_matches("recall " + " ".join(shown + labels), held_out):
            break
    label_of = {word: rng.choice(labels) for word in shown}
    lines = [f"{word} -> {label_of[word]}" for word in shown]
    asked = rng.choice(shown) if held_out else rng.sample(shown, 2)
    lines += [f"{word} ->[[ {label_of[word]}]]" for word in ([asked] if isinstance(asked, str) else asked)]
    last = label_of[asked if isinstance(asked, str) else asked[-1]]
    return Example("\n".join(lines), tuple(f" {label}" for label in labels if label != last), rest=0.0)


_FILLERS = (
    "{name} found an old {thing} near the {place}.",
    "Yesterday {name} went to the {place} and bought a {thing}.",
    "The {quality} {noun} stands beside the {other}.",
    "{name} and {friend} talked about the {noun} for hours.",
    "There is a {quality} {noun} in front of the {place}.",
    "{name} likes the {animal} more than the {noun}.",
)


def filler(rng: random.Random, held_out: bool) -> Example:
    """Write a plain sentence with nothing to learn but English."""
    del held_out
    if rng.random() < 0.3:
        return Example(rng.choice(lexicon.PLAIN_SENTENCES))
    name, friend = rng.sample(lexicon.FIRST_NAMES, 2)
    words = {
        "thing": draw(rng, lexicon.OBJECTS),
        "place": draw(rng, lexicon.PLACES),
        "quality": draw(rng, lexicon.QUALITIES),
    }
    nouns = {
        "noun": rng.choice(lexicon.NOUNS)[0],
        "other": rng.choice(lexicon.NOUNS)[1],
        "animal": draw(rng, lexicon.KINDS["animal"]),
    }
    return Example(rng.choice(_FILLERS).format(name=name, friend=friend, **words, **nouns))


@dataclass(frozen=True)
class Task:
    """Describe a task: how to write it, its share of the training documents, and how an answer is judged.

    `greedy`: greedy decoding gives the whole answer. `choice`: right answers together get more probability than wrong
    ones. A task whose judge is empty is trained on and not measured.
    """

    name: str
    write: Callable[[random.Random, bool], Example]
    share: float
    judge: str
    what: str


TASKS: tuple[Task, ...] = (
    Task("facts", fact, 25, "greedy", "a fact in a wording that training never used for it"),
    Task(
        "indirect_object",
        indirect_object,
        10,
        "greedy",
        "the name that receives, for a pair of names training never used",
    ),
    Task("repeat_words", repeat, 8, "greedy", "next word in the second half of repeated random words"),
    Task("copy", copy, 3, "greedy", "a short list of random words, copied whole"),
    Task("agreement", agreement, 5, "choice", "the verb form that fits the subject, past another noun"),
    Task("greater_than", greater_than, 4, "choice", "more probability on later than on earlier years"),
    Task("sentiment", sentiment, 6, "greedy", "the sentiment of a review training never used"),
    Task(
        "few_shot",
        few_shot,
        8,
        "greedy",
        "the label of a new word, by the kind of word the labels stand for in the prompt",
    ),
    Task("label_recall", label_recall, 5, "greedy", "the arbitrary label a word had earlier in the prompt"),
    Task(
        "two_hop_written", chats.two_hop_written, 4, "greedy", "two facts joined, with both steps written by the model"
    ),
    Task(
        "two_hop_direct",
        chats.two_hop_direct,
        5,
        "greedy",
        "two facts joined with no step written, for a pair never joined in training",
    ),
    Task(
        "chat_facts",
        chats.chat_fact,
        14,
        "greedy",
        "a whole chat reply about a fact, question wording new for that fact",
    ),
    Task("chat_sentiment", chats.chat_sentiment, 3, "greedy", "a whole chat reply about a new review's sentiment"),
    Task("chat_unknown", chats.chat_unknown, 1, "greedy", "'I do not know.' about people who are not in the world"),
    Task("small_talk", chats.small_talk, 0.5, "", "greetings"),
    Task("filler", filler, 3, "", "plain sentences"),
)


def training_documents(seed: str, count: int) -> list[world.Document]:
    """Write `count` training documents, the same for the same seed; some join up to three short texts."""
    rng = random.Random(f"train {seed}")
    chosen = rng.choices(TASKS, weights=[task.share for task in TASKS], k=count)
    documents = []
    for task in chosen:
        example = task.write(rng, False)
        marked, rest = example.marked, example.rest
        if task.name in ("facts", "indirect_object", "agreement", "filler") and rng.random() < 0.2:
            before = [
                rng.choice((fact, indirect_object, agreement, filler))(rng, False).marked
                for _ in range(rng.randint(1, 2))
            ]
            marked = " ".join([*before, marked])
        documents.append(world.document(marked, rest))
    return documents


def evaluation_items(seed: int, count: int) -> list[world.Item]:
    """Write `count` held-out prompts for every measured task, the same for the same seed."""
    items = []
    for task in TASKS:
        if not task.judge:
            continue
        rng = random.Random(f"evaluate {task.name} {seed}")
        for _ in range(count):
            example = task.write(rng, True)
            prompt, answer = world.prompt_of(example.marked)
            items.append(world.Item(task.name, prompt, example.answers or (answer,), example.distractors))
    return items
