"""Units cover every token once, never cross a border, and are what a reader would call a word, sentence or line."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens, Units
from pellucid.models.inputs import encode
from pellucid.models.units import line_starts, sentence_starts, units, word_starts
from tests import tokenizers_for_tests as tiny

KINDS = ("token", "word", "sentence", "line", "message")


def plain(text: str, tokenizer: Any = None) -> Tokens:
    return encode(tokenizer or tiny.byte_level(bos=True), text, kind="encoder").tokens


def split(text: str, starts: list[int]) -> list[str]:
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", ["Hello", ", ", "world", "!"]),
        ("  It's  3.14, isn't it?", ["  It's  ", "3.14", ", ", "isn't ", "it", "?"]),
        ("Wait... what?!", ["Wait", "... ", "what", "?", "!"]),
        ("well-known a_b http://x.y/z", ["well", "-", "known ", "a_b ", "http", ":", "//", "x.y", "/", "z"]),
        ("日本語の本 カタカナ", ["日", "本", "語", "の", "本 ", "カタカナ"]),
        ("سلام دنیا!", ["سلام ", "دنیا", "!"]),
        ("שלום עולם", ["שלום ", "עולם"]),
        ("👩‍🔬👍🏽 🇩🇪🇫🇷", ["👩‍🔬", "👍🏽 ", "🇩🇪", "🇫🇷"]),
        ("e\u0301te\u0301 हिन्दी", ["e\u0301te\u0301 ", "हिन्दी"]),
        ("a\x00b", ["a", "\x00", "b"]),
        ("哈哈", ["哈", "哈"]),
        (" \n ", [" \n "]),
        ("", [""]),
    ],
)
def test_words(text: str, words: list[str]):
    assert split(text, word_starts(text)) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        ("Dr. Smith met Mr. Lee, e.g. in May. They talked.", ["Dr. Smith met Mr. Lee, e.g. in May. ", "They talked."]),
        ("It cost 3.50 dollars. Yes.", ["It cost 3.50 dollars. ", "Yes."]),
        ("Well... maybe. Well... Maybe.", ["Well... maybe. ", "Well... ", "Maybe."]),
        ('"Really?" he asked. "Yes!" She left.', ['"Really?" he asked. ', '"Yes!" ', "She left."]),
        ("J. K. Rowling wrote. So did I. Then?", ["J. K. Rowling wrote. ", "So did I. ", "Then?"]),
        ("(See below.) Next.", ["(See below.) ", "Next."]),
        ("我来了。你呢？「好！」他说。", ["我来了。", "你呢？", "「好！」", "他说。"]),
        ("ما اسمك؟ اسمي علي۔ शुक्र है। ठीक", ["ما اسمك؟ ", "اسمي علي۔ ", "शुक्र है। ", "ठीक"]),
        ("Title\n\nbody text\nmore of it.\n\nnext", ["Title\n\n", "body text\nmore of it.\n\n", "next"]),
        ("\n\n Leading. Ok", ["\n\n Leading. ", "Ok"]),
        ("no end", ["no end"]),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, sentences: list[str]):
    assert split(text, sentence_starts(text)) == sentences


@pytest.mark.parametrize(
    ("text", "lines"),
    [("a\nb", ["a\n", "b"]), ("a\r\nb\rc\n", ["a\r\n", "b\r", "c\n"]), ("\n\na", ["\n", "\n", "a"]), ("a", ["a"])],
)
def test_lines(text: str, lines: list[str]):
    assert split(text, line_starts(text)) == lines


def test_special_tokens_are_units_only_when_asked():
    tokens = plain("Hello Paris")
    assert units(tokens, "token") == Units("token", ((1, 2), (2, 3)), ("Hello", " Paris"))
    assert units(tokens) == units(tokens, "token")
    asked = units(tokens, "token+special")
    assert asked == Units("token+special", ((0, 1), (1, 2), (2, 3)), ("<s>", "Hello", " Paris"))
    assert units(tokens, "token", special=True) == asked
    words = units(plain("hello world", tiny.wordpiece()), "word+special")
    assert words.labels == ("[CLS]", "hello", "world", "[SEP]")


def test_further_bytes_of_a_character_are_units_of_their_own_but_one_word():
    tokens = plain("x é👩.")
    assert units(tokens, "token").labels == ("x", " ", "é", "⟨é:2⟩", "👩", "⟨👩:2⟩", "⟨👩:3⟩", "⟨👩:4⟩", ".")
    assert units(tokens, "word") == Units("word", ((1, 3), (3, 5), (5, 9), (9, 10)), ("x", "é", "👩", "."))


def test_the_mark_of_a_words_start_goes_with_the_word():
    tokens = plain("1 é", tiny.llama_style())
    assert tokens.pieces == ("<s>", "", "1", " ", "é", "")
    assert units(tokens, "word").spans == ((1, 4), (4, 6))
    assert units(tokens, "word").labels == ("1", "é")
    assert units(tokens, "token").labels == ("▁", "1", " ", "é", "⟨é:2⟩")


def test_words_that_share_a_token_are_one_unit():
    tokens = Tokens((1, 2, 3, 4), ("a", " b c", "d", " e"), (False,) * 4, "a b cd e")
    assert units(tokens, "word") == Units("word", ((0, 1), (1, 3), (3, 4)), ("a", "b cd", "e"))
    joined = Tokens((1, 2, 3), ("one", ".\n", "two"), (False,) * 3, "one.\ntwo")
    assert units(joined, "line").labels == ("one.", "two")
    across = Tokens((1, 2, 3), ("a", "\nb\nc", "\nd"), (False,) * 3, "a\nb\nc\nd")
    assert units(across, "line").labels == ("a", "b\nc", "d")


def test_subwords_join_into_words():
    tokens = plain("Unknown movie, playing", tiny.wordpiece())
    assert tokens.pieces == ("[CLS]", "Un", "known", " movie", ",", " play", "ing", "[SEP]")
    assert units(tokens, "word") == Units(
        "word", ((1, 3), (3, 4), (4, 5), (5, 7)), ("Unknown", "movie", ",", "playing")
    )


def test_spaces_go_with_what_stands_in_front_of_them():
    tokens = plain("Hello  \n\n  Paris ")
    assert units(tokens, "word").labels == ("Hello", "Paris")
    assert units(tokens, "word").positions() == tuple(range(1, len(tokens)))
    code = plain("a:\n    b")
    assert ["".join(code.pieces[s:e]) for s, e in units(code, "line").spans] == ["a:\n", "    b"]
    blank = plain(" \n ")
    assert units(blank, "word").spans == ((1, len(blank)),)
    assert units(blank, "word").labels == (" \n ",)


def test_tokenizers_without_offsets_have_words_too():
    tokens = plain("Hello snow, Paris", tiny.SlowWords())
    assert tokens.offsets is None
    assert units(tokens, "word").spans == ((0, 1), (1, 2), (2, 3), (3, 4))
    assert units(plain("née à", tiny.SlowBytes()), "word").labels == ("née", "à")


def test_messages_are_units_named_by_their_role():
    chat = [{"role": "user", "content": "Hello. world"}, {"role": "assistant", "content": "Paris"}]
    tokens = encode(tiny.byte_level(), chat, kind="decoder").tokens
    found = units(tokens, "message")
    assert found.labels == ("user", "assistant")
    assert ["".join(tokens.pieces[a:b]) for a, b in found.spans] == ["Hello. world", "Paris"]
    assert units(tokens, "sentence").labels == ("Hello. world", "Paris")
    assert units(tokens, "word").labels == ("Hello", ".", "world", "Paris")
    assert units(tokens, "message+special").positions() == tuple(range(len(tokens)))


def test_units_never_cross_messages_that_touch():
    tokenizer = tiny.byte_level("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    chat = [
        {"role": "user", "content": "qu"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "y z"},
    ]
    tokens = encode(tokenizer, chat, kind="decoder").tokens
    for kind, labels in (
        ("word", ("qu", "x", "y", "z")),
        ("sentence", ("qu", "x", "y z")),
        ("line", ("qu", "x", "y z")),
    ):
        assert units(tokens, kind).labels == labels


def test_a_repeated_message_is_a_unit_each_time():
    chat = [{"role": "user", "content": "Hello"}]
    tokens = encode(tiny.byte_level(tiny.REPEATS), chat, kind="decoder").tokens
    assert units(tokens, "message").labels == ("user", "user")


def test_texts_of_a_pair_and_a_plain_text_are_messages():
    tokens = encode(tiny.wordpiece(), ("hello world", "the movie"), kind="encoder").tokens
    assert units(tokens, "message") == Units("message", ((1, 3), (4, 6)), ("text 1", "text 2"))
    assert units(tokens, "word").labels == ("hello", "world", "the", "movie")
    assert units(plain("Hello world"), "message") == Units("message", ((1, 3),), ("text",))


def test_ids_without_a_tokenizer_are_all_units():
    tokens = encode(None, [0, 5, 7], kind="decoder").tokens
    assert units(tokens, "token") == Units("token", ((0, 1), (1, 2), (2, 3)), ("⟨0⟩", "⟨5⟩", "⟨7⟩"))
    assert units(tokens, "message").spans == ((0, 3),)
    with pytest.raises(InputError, match="'word' need text"):
        units(tokens, "word")


def test_given_ranges_are_taken_as_they_are():
    tokens = plain("Hello world Paris")
    assert units(tokens, [(0, 2), (3, 4)]) == Units("span", ((0, 2), (3, 4)), ("<s>Hello", "Paris"))
    assert units(tokens, [[1, 3]]).labels == ("Hello world",)
    given = Units("mine", ((1, 2),), ("x",))
    assert units(tokens, given) is given


@pytest.mark.parametrize(
    ("unit", "sentence"),
    [
        ("wrod", r"'wrod' is unknown \(did you mean 'word'"),
        ("special", "unknown"),
        ([], "list of units is empty"),
        ([(0, 9)], r"\(0, 9\) is not within the prompt of 3 tokens"),
        ([(-1, 2)], "not within"),
        ([(1, 1)], "do not overlap"),
        ([(1, 3), (2, 3)], "do not overlap"),
        ([(0, 1, 2)], r"token range \(start, end\)"),
        (Units("x", ((2, 5),)), "not within"),
    ],
)
def test_bad_units_are_refused_in_one_sentence(unit: Any, sentence: str):
    with pytest.raises(InputError, match=sentence):
        units(plain("Hello world"), unit)


@pytest.mark.parametrize("make", [tiny.byte_level, tiny.llama_style, tiny.unigram, tiny.wordpiece, tiny.SlowBytes])
def test_units_of_random_texts_partition_the_tokens(make: Any):
    tokenizer, draw = make(), random.Random(11)
    alphabet = [*"aé .,'!?\n\x00日。か", "Hello", " world", "👩‍🔬", "\u0301", "ع", "\u202e", "\n\n", "Dr. ", "[MASK]"]
    for _ in range(40):
        text = "a" + "".join(draw.choices(alphabet, k=draw.randint(0, 25)))
        tokens = plain(text, tokenizer)
        mine = tuple(i for i, s in enumerate(tokens.special) if not s)
        cuts = {"word": word_starts, "sentence": sentence_starts, "line": line_starts}
        for kind in KINDS:
            found = units(tokens, kind)
            assert found.positions() == mine
            assert len(found.labels) == len(found)
            assert all(found.labels)
        for kind, starts_of in cuts.items():  # no border inside a token's text, spaces aside, separates units
            wanted = {text[a:].lstrip() for a in starts_of(text)}
            for start, _ in units(tokens, kind).spans[1:]:
                assert "".join(tokens.pieces[start : mine[-1] + 1]).lstrip() in wanted
