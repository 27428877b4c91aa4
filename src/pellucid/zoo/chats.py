"""Chats, reviews and two-step questions of the small world.

A chat is `<|user|> question<|end|><|assistant|> reply<|end|>`, optionally after `<|system|> ...<|end|>`. The chat
template beside the model writes the same text, and a test holds the two together.
"""

import random
from collections.abc import Sequence

from pellucid.zoo import lexicon, world
from pellucid.zoo.examples import Example, key_matches

FACTS = world.facts()
_ANSWER = {(fact.subject, fact.relation): fact.answer for fact in FACTS}
_ONE_WORD = "Answer in one word."
_SENTENCE = "Answer in a sentence."

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'].strip() + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def render(messages: Sequence[tuple[str, str]], reply: str) -> str:
    """Write a chat of (role, content) pairs as marked text whose answer is the assistant's reply."""
    before = "".join(f"<|{role}|> {content}<|end|>" for role, content in messages)
    return f"{before}<|assistant|>[[ {reply}<|end|>]]"


def _question(rng: random.Random, held_out: bool) -> tuple[world.Fact, str]:
    """Draw a fact and a wording of the question about it."""
    while True:
        fact = rng.choice(FACTS)
        questions = world.RELATIONS[fact.relation].questions
        index = rng.randrange(len(questions))
        if world.question_held_out(fact, index) == held_out:
            return fact, world.fill(questions[index], fact)


def _in_style(rng: random.Random) -> tuple[list[tuple[str, str]], bool]:
    """Draw a system message; say whether the reply is one word."""
    style = rng.random()
    if style < 0.25:
        return [("system", _ONE_WORD)], True
    return ([("system", _SENTENCE)] if style < 0.35 else []), False


def chat_fact(rng: random.Random, held_out: bool) -> Example:
    """Ask about a fact; the reply is a sentence, or one word if the system message wants that."""
    fact, question = _question(rng, held_out)
    relation = world.RELATIONS[fact.relation]
    messages, short = _in_style(rng)
    template = "{a}" if short else relation.reply
    if rng.random() < 0.2:
        earlier, asked = _question(rng, False)
        reply = world.fill("{a}" if short else world.RELATIONS[earlier.relation].reply, earlier)
        messages += [("user", asked), ("assistant", reply)]
    others = [world.Fact(fact.subject, fact.relation, value) for value in relation.values if value != fact.answer]
    wrong = tuple(f" {world.fill(template, other)}<|end|>" for other in others)
    return Example(render([*messages, ("user", question)], world.fill(template, fact)), wrong, rest=0.03)


def chat_unknown(rng: random.Random, held_out: bool) -> Example:
    """Ask about a person who is not in the world."""
    while True:
        person = f"{rng.choice(lexicon.STRANGERS)} {rng.choice(lexicon.SURNAMES)}"
        relation = rng.choice(world.OF_PEOPLE)
        question = rng.choice(world.RELATIONS[relation].questions).replace("{s}", person)
        if key_matches(f"unknown {question}", held_out):
            break
    wrong = tuple(
        f" {world.RELATIONS[relation].reply.replace('{s}', person).replace('{a}', v)}"
        for v in world.RELATIONS[relation].values
    )
    return Example(render([("user", question)], "I do not know."), wrong, rest=0.02)


_SMALL_TALK = (
    ("Hello!", "Hello! How can I help you?"),
    ("Hi!", "Hello! How can I help you?"),
    ("Good morning.", "Good morning! How can I help you?"),
    ("Who are you?", "I am a very small language model."),
    ("What can you do?", "I know a few facts and I can judge a review."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Goodbye.", "Goodbye!"),
)


def small_talk(rng: random.Random, held_out: bool) -> Example:
    """Greet."""
    del held_out
    user, reply = rng.choice(_SMALL_TALK)
    return Example(render([("user", user)], reply), rest=0.02)


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _opinion(rng: random.Random, good: bool) -> str:
    """Write one sentence of a review."""
    words, opposite = (lexicon.PRAISE, lexicon.BLAME) if good else (lexicon.BLAME, lexicon.PRAISE)
    thing, degree = rng.choice(lexicon.REVIEWED), rng.choice(lexicon.DEGREES)
    first, second = rng.sample(words, 2)
    forms = (
        f"This {thing} was {first}.",
        f"The {thing} was {degree} {first}.",
        f"I found the {thing} {first}.",
        f"We thought that the {thing} was {first} and {second}.",
        f"What {_with_article(first)} {thing}!",
        f"The {thing} was {first}, and the {rng.choice(lexicon.REVIEWED)} was {second}.",
        f"It was {_with_article(first)} {thing}.",
        f"The {thing} was not {rng.choice(opposite)}.",
    )
    return rng.choice(forms)


def review(rng: random.Random, held_out: bool) -> tuple[str, str, str]:
    """Write a review of one to three sentences; return it, its sentiment and the opposite one.

    Each sentence is held out or not, and all of a review are on the same side.
    """
    while True:
        good = rng.random() < 0.5
        sentences = [_opinion(rng, good) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        if all(key_matches(f"review {sentence}", held_out) for sentence in sentences):
            return (" ".join(sentences), *(("positive", "negative") if good else ("negative", "positive")))


def chat_sentiment(rng: random.Random, held_out: bool) -> Example:
    """Ask for the sentiment of a review."""
    text, mood, other = review(rng, held_out)
    question = rng.choice(
        (
            "What is the sentiment of this review? {r}",
            "Is this review positive or negative? {r}",
            "Review: {r} Sentiment?",
        )
    )
    messages, short = _in_style(rng)
    template = "{m}" if short else "The sentiment is {m}."
    messages.append(("user", question.format(r=text)))
    wrong = (f" {template.format(m=other)}<|end|>",)
    return Example(render(messages, template.format(m=mood)), wrong, rest=0.02)


# question, first relation, first step, second relation, second step, direct statement
_HOPS = (
    (
        "What is the capital of the country that {s} comes from?",
        ("origin", "{s} comes from {m}."),
        ("capital", "The capital of {m} is {a}."),
        "The capital of the country where {s} was born is[[ {a}]].",
    ),
    (
        "What is the language of the country that {s} comes from?",
        ("origin", "{s} comes from {m}."),
        ("language", "In {m} they speak {a}."),
        "The language of the country where {s} was born is[[ {a}]].",
    ),
    (
        "In which country does {s} live?",
        ("home", "{s} lives in {m}."),
        ("country", "{m} is in {a}."),
        "The country where {s} lives is[[ {a}]].",
    ),
)


def _hop(rng: random.Random, held_out: bool) -> tuple[str, str, str, tuple[str, ...]]:
    """Draw two joined facts; return question, written steps with the answer, direct statement and wrong answers."""
    while True:
        person, which = rng.choice(world.people()), rng.randrange(len(_HOPS))
        if key_matches(f"hop {which} {person}", held_out):
            break
    question, (first, step), (second, next_step), direct = _HOPS[which]
    middle = _ANSWER[person, first]
    answer = _ANSWER[middle, second]
    steps = f"{step} {next_step} Answer: {{a}}."
    values = world.RELATIONS[second].values

    def fill(template: str) -> str:
        return template.replace("{s}", person).replace("{m}", middle).replace("{a}", answer)

    return fill(question), fill(steps), fill(direct), tuple(f" {value}" for value in values if value != answer)


def two_hop_written(rng: random.Random, held_out: bool) -> Example:
    """Join two facts with both steps written out."""
    question, steps, _, wrong = _hop(rng, held_out)
    return Example(f"Question: {question} Steps:[[ {steps}]]", wrong, rest=0.02)


def two_hop_direct(rng: random.Random, held_out: bool) -> Example:
    """Join two facts and answer at once."""
    _, _, direct, wrong = _hop(rng, held_out)
    return Example(direct, wrong, rest=0.03)
