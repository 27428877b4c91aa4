"""The small world that tiny-lm learns: facts, their paraphrases, and what is held out of training.

Text is written with marks: in "The capital of France is[[ Paris]]." the marked part is the answer. A training
document is the text without marks, plus the character ranges of the answers; an evaluation prompt is the text before
the last mark.
"""

import random
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from pellucid.zoo import lexicon

_MARK = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


@dataclass(frozen=True)
class Document:
    """Hold one training text, the character ranges of its answers and the loss weight of everything else (0 to 1)."""

    text: str
    spans: tuple[tuple[int, int], ...]
    rest: float = 0.05


@dataclass(frozen=True)
class Item:
    """Hold one evaluation prompt, the continuations that count as right and the ones that count as wrong."""

    task: str
    prompt: str
    answers: tuple[str, ...]
    distractors: tuple[str, ...]


def document(marked: str, rest: float = 0.05) -> Document:
    """Turn marked text into a training document."""
    text, spans, start = "", [], 0
    for match in _MARK.finditer(marked):
        text += marked[start : match.start()]
        spans.append((len(text), len(text) + len(match[1])))
        text += match[1]
        start = match.end()
    return Document(text + marked[start:], tuple(spans), rest)


def prompt_of(marked: str) -> tuple[str, str]:
    """Split marked text into the prompt before the last mark and the answer inside it."""
    last = list(_MARK.finditer(marked))[-1]
    return _MARK.sub(r"\1", marked[: last.start()]), last[1]


def is_held_out(key: str, one_in: int = 8) -> bool:
    """Say whether training must never see `key`; the same on every machine and for every seed."""
    return zlib.crc32(key.encode()) % one_in == 0


@dataclass(frozen=True)
class Fact:
    """Hold one fact as subject, relation and answer."""

    subject: str
    relation: str
    answer: str


@dataclass(frozen=True)
class Relation:
    """Hold one relation: its statements, its questions with full-sentence replies, and its possible answers."""

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    reply: str
    values: tuple[str, ...]


_CAPITALS = tuple(row[1] for row in lexicon.COUNTRIES)
_LANDS = tuple(row[0] for row in lexicon.COUNTRIES)

RELATIONS: dict[str, Relation] = {
    "capital": Relation(
        (
            "The capital of {s} is[[ {a}]].",
            "{s}'s capital is[[ {a}]].",
            "The capital city of {s} is called[[ {a}]].",
            "In {s}, the capital is[[ {a}]].",
            "The government of {s} sits in[[ {a}]].",
            "Everyone in {s} knows that their capital is[[ {a}]].",
        ),
        (
            "What is the capital of {s}?",
            "Which city is the capital of {s}?",
            "Tell me the capital of {s}.",
            "Name the capital of {s}.",
        ),
        "The capital of {s} is {a}.",
        _CAPITALS,
    ),
    "country": Relation(
        (
            "{s} is the capital of[[ {a}]].",
            "{s} is a city in[[ {a}]].",
            "The city of {s} lies in[[ {a}]].",
            "If you visit {s}, you are in[[ {a}]].",
            "You can find {s} in[[ {a}]].",
        ),
        ("In which country is {s}?", "Which country does {s} belong to?", "Where is the city of {s}?"),
        "{s} is in {a}.",
        _LANDS,
    ),
    "continent": Relation(
        (
            "{s} is a country in[[ {a}]].",
            "The country of {s} is part of[[ {a}]].",
            "{s} lies on the continent of[[ {a}]].",
            "On the map, {s} belongs to[[ {a}]].",
            "The continent of {s} is[[ {a}]].",
        ),
        ("On which continent is {s}?", "Which continent does {s} belong to?", "What is the continent of {s}?"),
        "{s} is part of {a}.",
        lexicon.CONTINENTS,
    ),
    "language": Relation(
        (
            "The language of {s} is[[ {a}]].",
            "People in {s} speak[[ {a}]].",
            "In {s}, most people speak[[ {a}]].",
            "The people of {s} write in[[ {a}]].",
            "If you move to {s}, learn[[ {a}]].",
        ),
        ("What is the language of {s}?", "Which language do people in {s} speak?", "What do people speak in {s}?"),
        "In {s} they speak {a}.",
        tuple(dict.fromkeys(row[3] for row in lexicon.COUNTRIES)),
    ),
    "home": Relation(
        (
            "{s} lives in[[ {a}]].",
            "{s} has a house in[[ {a}]].",
            "The home of {s} is in[[ {a}]].",
            "You can visit {s} at home in[[ {a}]].",
            "{s} moved to[[ {a}]] years ago and never left.",
            "The city where {s} lives is[[ {a}]].",
        ),
        (
            "Where does {s} live?",
            "In which city does {s} live?",
            "Which city is the home of {s}?",
            "Tell me where {s} lives.",
        ),
        "{s} lives in {a}.",
        _CAPITALS,
    ),
    "origin": Relation(
        (
            "{s} comes from[[ {a}]].",
            "{s} was born in[[ {a}]].",
            "The country where {s} was born is[[ {a}]].",
            "{s} grew up in[[ {a}]].",
            "The family of {s} comes from[[ {a}]].",
            "The passport of {s} was printed in[[ {a}]].",
        ),
        (
            "Where does {s} come from?",
            "Which country does {s} come from?",
            "In which country was {s} born?",
            "Tell me where {s} comes from.",
        ),
        "{s} comes from {a}.",
        _LANDS,
    ),
    "craft": Relation(
        (
            "{s} works as a[[ {a}]].",
            "{s} earns money as a[[ {a}]].",
            "The job of {s} is that of a[[ {a}]].",
            "By profession, {s} is a[[ {a}]].",
            "People know {s} as a good[[ {a}]].",
            "{s} trained for years to become a[[ {a}]].",
        ),
        (
            "What is the job of {s}?",
            "What does {s} work as?",
            "What does {s} do for a living?",
            "Tell me the job of {s}.",
        ),
        "{s} works as a {a}.",
        lexicon.CRAFTS,
    ),
    "instrument": Relation(
        (
            "{s} plays the[[ {a}]].",
            "In the evening {s} plays the[[ {a}]].",
            "The instrument of {s} is the[[ {a}]].",
            "{s} owns an old[[ {a}]].",
            "As a child, {s} learned to play the[[ {a}]].",
        ),
        ("Which instrument does {s} play?", "What does {s} play?", "What is the instrument of {s}?"),
        "{s} plays the {a}.",
        lexicon.INSTRUMENTS,
    ),
}


OF_PEOPLE = ("home", "origin", "craft", "instrument")


def people() -> tuple[str, ...]:
    """Return the full names of the invented people."""
    order = list(lexicon.SURNAMES) * 2
    random.Random("surnames").shuffle(order)
    return tuple(f"{first} {last}" for first, last in zip(lexicon.FIRST_NAMES, order, strict=True))


def facts() -> tuple[Fact, ...]:
    """Return every fact of the world, always the same and in the same order."""
    found = []
    for land, capital, continent, language in lexicon.COUNTRIES:
        found.append(Fact(land, "capital", capital))
        found.append(Fact(capital, "country", land))
        found.append(Fact(land, "continent", continent))
        found.append(Fact(land, "language", language))
    rng = random.Random("people")
    for person in people():
        found += [Fact(person, name, rng.choice(RELATIONS[name].values)) for name in OF_PEOPLE]
    return tuple(found)


def statement_held_out(fact: Fact, index: int) -> bool:
    """Say whether statement `index` of `fact` is kept from training; the first statement of a relation never is."""
    return index > 0 and is_held_out(f"statement {index} {fact.relation} {fact.subject}", 5)


def question_held_out(fact: Fact, index: int) -> bool:
    """Say whether question `index` about `fact` is kept from training; the first question of a relation never is."""
    return index > 0 and is_held_out(f"question {index} {fact.relation} {fact.subject}", 5)


def fill(template: str, fact: Fact) -> str:
    """Write `fact` into a template that has {s} for the subject and, perhaps, {a} for the answer."""
    return template.replace("{s}", fact.subject).replace("{a}", fact.answer)


def fingerprint() -> str:
    """Return a short code that changes when the facts or their wordings do."""
    wordings = [(name, relation.statements, relation.questions, relation.reply) for name, relation in RELATIONS.items()]
    return f"{zlib.crc32(repr((facts(), wordings)).encode()):08x}"


def occurs_in(prompts: Iterable[str], documents: Iterable[Document]) -> set[str]:
    """Return the prompts that occur whole at the start of a document or of a line in it; none should.

    Text inside a longer paragraph counts too: a sentence is looked up at every place where one begins.
    """
    wanted = set(prompts)
    lengths = sorted({len(prompt) for prompt in wanted})
    found: set[str] = set()
    for doc in documents:
        starts = [0, *(match.end() for match in re.finditer(r"[.!?]\s|\n|<\|end\|>", doc.text))]
        for start in starts:
            for length in lengths:
                if start + length > len(doc.text):
                    break
                if doc.text[start : start + length] in wanted:
                    found.add(doc.text[start : start + length])
    return found
