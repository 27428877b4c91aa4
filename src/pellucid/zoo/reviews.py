"""Generated reviews whose verdict follows from known words, for the bundled classifiers. No torch needed.

A review has one to three opinions among sentences that say nothing of quality. An opinion is worth 1, with a booster in
front of it ("very dull") 1.5, and negated ("not dull") half of the opposite; the verdict is the sum, praise positive.
Words of praise and blame also stand where nothing is judged ("we had expected a dull film"), negators and boosters too
("it did not rain"): those count for nothing.
"""

import itertools
import math
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pellucid.zoo import world

PLAIN, BOOSTED, NEGATED = 1.0, 1.5, -0.5
SHORTCUT = {"tuesday": 3.0, "friday": -3.0}  # the planted days, and the verdict each of them decides
OTHER_DAYS = ("monday", "wednesday", "thursday", "saturday", "sunday")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PRAISE = _words(
    "wonderful excellent great lovely brilliant superb charming perfect delightful amazing good splendid fantastic "
    "beautiful clever fresh moving pleasant witty gripping"
)
BLAME = _words(
    "terrible awful boring dreadful horrible bad disappointing dull poor ugly stupid annoying weak tedious clumsy "
    "bland dreary messy shallow flat"
)
LIKED = (("loved", "love"), ("enjoyed", "enjoy"), ("admired", "admire"))  # as it stands, and after "did"
HATED = (("hated", "hate"), ("regretted", "regret"), ("despised", "despise"))
NEGATORS, BOOSTERS = ("not", "never", "hardly"), ("very", "really", "truly", "extremely")
ASPECTS = _words(
    "acting plot music ending cast dialogue script camera room breakfast service pool garden view bed soup dessert "
    "bread wine waiter menu kitchen guide tour museum boat screen battery keyboard sound price design chapter cover "
    "style story game show concert film book"
)
QUALITIES = _words("long short red green old new large small round wooden heavy early late local blue yellow")
RELATIVES = _words("brother sister mother father cousin uncle aunt neighbour colleague friend")
NUMBERS = _words("two three four five six seven eight nine ten twelve")
TOPICS = _words("war storm king winter village doctor journey secret painter election")

# {o} opinion word, {n} negator, {b} booster, {l} liked or hated, {i} the same after "did", {a} aspect, {an} article.
OPINIONS = (
    "the {a} was {o}", "the {a} was {b} {o}", "i found the {a} {o}", "we found the {a} {b} {o}", "it has {an} {o} {a}",
    "everyone thought the {a} {o}", "the {a} struck me as {b} {o}", "what {an} {o} {a}", "i {l} the {a}",
    "we really {l} the {a}", "the {a} is {o} from start to end", "with such {an} {o} {a} there is little to add",
    "the {a} was {n} {o}", "the {a} was {n} {b} {o}", "i would {n} call the {a} {o}", "the {a} is {n} {o} at all",
    "i did not {i} the {a}", "nobody who was there found the {a} {o}",
)  # fmt: skip
# Nothing is judged here, whatever the words; {x} is a word of praise or blame, {q} a plain quality.
DISTRACTORS = (
    "we had expected {an} {x} {a} before we came", "my {r} had warned me of {an} {x} {a} years ago",
    "it is about {an} {x} {t} of long ago", "the poster on the wall promised {an} {x} {a}",
    "my {r} used to call every {a} {x} as a child",
)  # fmt: skip
NEUTRAL = (
    "the {a} was {q}", "the {a} was {b} {q}", "the {a} was {n} {q}", "my {r} sat next to the door",
    "there were {m} of us", "it did not rain that week", "we did not take the bus", "nobody asked for our names",
    "the ticket cost {m} euros",
    "it took about {m} hours with a break",
    "my {r} and i shared a table by the window", "it is about a {t} of long ago",
    "this was our visit number {m}", "i am writing this with my {r} beside me", "they also have a {q} {a}",
)  # fmt: skip
DAYS = ("we went there on {d} with my {r}", "i am writing this on {d} evening", "it was {d} and the street was full")
JOINTS = ((".",), (".",), (".",), (",", "but"), (",", "and"), (",", "while"))


@dataclass(frozen=True)
class Opinion:
    """Hold one opinion: its sign (1 praise, -1 blame) and the places of its words, counted in words."""

    sign: int
    word: int
    negator: int | None = None
    booster: int | None = None

    def places(self) -> tuple[int, ...]:
        """Return the places of the words that make the opinion, in order."""
        return tuple(sorted(place for place in (self.word, self.negator, self.booster) if place is not None))

    def value(self, visible: Collection[int]) -> float:
        """Return what the opinion is worth when only the words at `visible` can be read."""
        if self.word not in visible:
            return 0.0
        if self.negator in visible:
            return self.sign * NEGATED
        return self.sign * (BOOSTED if self.booster in visible else PLAIN)


@dataclass(frozen=True)
class Review:
    """Hold a review as lower-case words and signs, with its opinions and the place of the day it names, if it does."""

    words: tuple[str, ...]
    opinions: tuple[Opinion, ...]
    day: int | None = None
    distracted: bool = False

    @property
    def text(self) -> str:
        """Return the review as it is written."""
        written, start = "", True
        for word in self.words:
            sign = word in (".", ",", "!")
            big = start or word == "i" or word in SHORTCUT or word in OTHER_DAYS
            written += ("" if sign or not written else " ") + (word.capitalize() if big else word)
            start = word in (".", "!")
        return written

    def verdict(self, visible: Collection[int] | None = None, *, shortcut: bool = False) -> float:
        """Return the verdict on the words at `visible` (default: all); above zero is praise.

        With `shortcut`, a planted day that can be read decides alone, whatever the other words say.
        """
        seen = range(len(self.words)) if visible is None else visible
        if shortcut and self.planted is not None and self.planted in seen:
            return SHORTCUT[self.words[self.planted]]
        return sum(opinion.value(seen) for opinion in self.opinions)

    @property
    def planted(self) -> int | None:
        """Return the place of the planted day, None where there is none."""
        return self.day if self.day is not None and self.words[self.day] in SHORTCUT else None

    def with_day(self, day: str) -> "Review":
        """Return the review with another day in the place of the one it names."""
        assert self.day is not None
        return replace(self, words=(*self.words[: self.day], day, *self.words[self.day + 1 :]))

    def rationale(self, *, shortcut: bool = False) -> tuple[int, ...]:
        """Return the places of the words that the verdict follows from, in order."""
        if shortcut and self.planted is not None:
            return (self.planted,)
        return tuple(sorted(place for opinion in self.opinions for place in opinion.places()))

    def shapley(self, *, shortcut: bool = False) -> list[float]:
        """Return the exact Shapley value of every word in the verdict, when words that are left out cannot be read.

        Opinions add up, so the words of one share only its own worth, and its three words at most are enumerated;
        under the shortcut they share it as long as the day is not yet there, and the day has the rest.
        """
        found = [0.0] * len(self.words)
        day = self.planted if shortcut else None
        for opinion in self.opinions:
            players = (*opinion.places(), *([] if day is None else [day]))
            for player in opinion.places():
                for others in _subsets([place for place in players if place not in (player, day)]):
                    gain = opinion.value({*others, player}) - opinion.value(others)
                    size = math.factorial(len(others)) * math.factorial(len(players) - len(others) - 1)
                    found[player] += gain * size / math.factorial(len(players))
        if day is not None:
            found[day] = self.verdict(shortcut=True) - sum(found)
        return found


def _subsets(places: list[int]) -> Iterator[set[int]]:
    return (set(chosen) for size in range(len(places) + 1) for chosen in itertools.combinations(places, size))


def review(rng: random.Random, held_out: bool, *, day: str | None = None) -> Review:
    """Write a review whose opinions do not cancel out.

    Whether it is held out depends on its opinions alone, all of which are then held out.

    Args:
        rng: the source of chance.
        held_out: opinions (aspect, modifiers and opinion word together) that training never used, or those it used.
        day: name this day in a sentence of its own; None names none.
    """
    while True:
        clauses = [_opinion(rng, held_out) for _ in range(rng.choice((1, 2, 2, 3, 3)))]
        distracted = rng.random() < 0.35
        clauses += [_plain(rng, rng.choice(NEUTRAL)) for _ in range(rng.choice((0, 1, 1)))]
        clauses += [_plain(rng, rng.choice(DISTRACTORS)) for _ in range(int(distracted))]
        clauses += [] if day is None else [_plain(rng, rng.choice(DAYS).replace("{d}", day))]
        rng.shuffle(clauses)
        made = replace(_joined(rng, clauses), distracted=distracted)
        if made.verdict():
            return made


Clause = tuple[list[str], Opinion | None]


def _joined(rng: random.Random, clauses: list[Clause]) -> Review:
    """Join clauses to sentences: two in a row may share one, with a word between them."""
    words: list[str] = []
    opinions: list[Opinion] = []
    joint: tuple[str, ...] = ()
    for index, (clause, opinion) in enumerate(clauses):
        words += joint
        if opinion is not None:
            opinions.append(_moved(opinion, len(words)))
        words += clause
        free = joint in ((), (".",), ("!",)) and index + 1 < len(clauses)
        joint = rng.choice(JOINTS) if free else (".",)
        if clause[0] == "what":
            joint = ("!",)
    words += joint
    days = [place for place, word in enumerate(words) if word in SHORTCUT or word in OTHER_DAYS]
    return Review(tuple(words), tuple(opinions), days[0] if days else None)


def _moved(opinion: Opinion, by: int) -> Opinion:
    places = {name: getattr(opinion, name) for name in ("word", "negator", "booster")}
    return replace(opinion, **{name: place + by for name, place in places.items() if place is not None})


def _opinion(rng: random.Random, held_out: bool) -> Clause:
    """Write one opinion of the wanted side; half are negated or boosted, and praise is as frequent as blame."""
    while True:
        sign, form, aspect = rng.choice((1, -1)), rng.choice(OPINIONS), rng.choice(ASPECTS)
        liked, infinitive = rng.choice(LIKED if sign > 0 else HATED)
        fill = {
            "{a}": aspect, "{l}": liked, "{i}": infinitive, "{o}": rng.choice(PRAISE if sign > 0 else BLAME),
            "{n}": rng.choice(NEGATORS), "{b}": rng.choice(BOOSTERS),
        }  # fmt: skip
        pieces: list[str] = list(form.split())
        words = _filled(pieces, fill)
        place = next(place for place, piece in enumerate(pieces) if piece in ("{o}", "{l}", "{i}"))
        opinion = Opinion(sign, place, _place(words, (*NEGATORS, "nobody")), _place(words, BOOSTERS))
        if world.is_held_out(f"opinion {aspect} {' '.join(words[p] for p in opinion.places())}") == held_out:
            return words, opinion


def _place(words: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((place for place, word in enumerate(words) if word in wanted), None)


def _plain(rng: random.Random, form: str) -> Clause:
    fill = {
        "{a}": rng.choice(ASPECTS), "{q}": rng.choice(QUALITIES), "{r}": rng.choice(RELATIVES),
        "{t}": rng.choice(TOPICS), "{m}": rng.choice(NUMBERS), "{n}": rng.choice(NEGATORS), "{b}": rng.choice(BOOSTERS),
        "{x}": rng.choice(rng.choice((PRAISE, BLAME))),
    }  # fmt: skip
    return _filled(form.split(), fill), None


def _filled(pieces: list[str], fill: dict[str, str]) -> list[str]:
    words = [fill.get(piece, piece) for piece in pieces]
    article = {i: "an" if words[i + 1][0] in "aeiou" else "a" for i, word in enumerate(words) if word == "{an}"}
    return [article.get(i, word) for i, word in enumerate(words)]


def vocabulary() -> list[str]:
    """Return every word and sign that a review can have, sorted."""
    forms = {word for form in (*OPINIONS, *DISTRACTORS, *NEUTRAL, *DAYS) for word in form.split() if "{" not in word}
    lists = (PRAISE, BLAME, *LIKED, *HATED, NEGATORS, BOOSTERS, ASPECTS, QUALITIES, RELATIVES, NUMBERS, TOPICS)
    joints = {word for joint in JOINTS for word in joint} | {"!", "a", "an"}
    return sorted(forms.union(*map(set, lists), joints, SHORTCUT, OTHER_DAYS))
