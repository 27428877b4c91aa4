"""Chat templates: every message's content is found exactly, whatever the template does with it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pellucid.core.errors import InputError
from pellucid.core.tokens import Tokens
from pellucid.models.chat import JOINER, message_of_tokens, read_messages, render_chat
from pellucid.models.inputs import encode
from tests import tokenizers_for_tests as tiny

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def spoken(tokens: Tokens, message: int) -> str:
    return "".join(p for p, m in zip(tokens.pieces, tokens.message, strict=True) if m == message)


TALK = ((SYSTEM, "the system"), (USER, "Hello world"), (ASSISTANT, "Paris"), (USER, "London?"))


def test_chatml_spans_are_exact():
    tokenizer = tiny.byte_level()
    tokens, notes = encode(tokenizer, chat((USER, "Hello Paris"), (ASSISTANT, "world"), (USER, "the")), kind="decoder")
    start, end, line = "<|im_start|>", "<|im_end|>", "\n"
    assert tokens.pieces == (
        start, "user", line, "Hello", " Paris", end, line, start, "assistant", line, "world", end, line,
        start, "user", line, "the", end, line, start, "assistant", line,
    )  # fmt: skip
    assert tokens.message == (-1, -1, -1, 0, 0, *(-1,) * 5, 1, *(-1,) * 5, 2, *(-1,) * 5)
    assert tokens.roles == ("", "", "", USER, USER, *("",) * 5, ASSISTANT, *("",) * 5, USER, *("",) * 5)
    assert tokens.special == tuple(m < 0 for m in tokens.message)
    assert not notes


@pytest.mark.parametrize("template", ["CHATML", "STRIPS_THINKING", "SEVERAL_ENDS", "TRIMS", "UPPERS"])
@pytest.mark.parametrize("last", ["Answer.", " Answer \n", "<think>\nthe thing\n</think>\n\nAnswer ", "", "a</s>b"])
@pytest.mark.parametrize("open_end", [True, False])
def test_ids_are_those_of_the_tokenizers_own_template_call(template: str, last: str, open_end: bool):
    tokenizer: Any = tiny.byte_level(getattr(tiny, template))
    for messages in (chat(*TALK), chat(*TALK, (ASSISTANT, last))):
        closing = messages[-1]["role"] == ASSISTANT
        tokens, _ = encode(tokenizer, messages, kind="decoder", continue_chat=open_end)
        try:
            own = tokenizer.apply_chat_template(
                messages, add_generation_prompt=not closing, continue_final_message=closing and open_end
            )["input_ids"]
        except ValueError:  # it looks for the text as written, which UPPERS does not keep
            assert template in ("UPPERS", "STRIPS_THINKING")
            continue
        if template == "TRIMS" and not last and closing and open_end:  # it trims the template's own line break, too
            own = [*own, tokenizer.convert_tokens_to_ids("Ċ")]
        assert list(tokens.ids) == own


def test_llama_2_ids_and_spans_with_a_refused_system_message():
    tokenizer: Any = tiny.llama_style()
    tokens, notes = encode(tokenizer, chat(*TALK), kind="decoder")
    assert tokens.text == "<s>[INST] the system\n\nHello world [/INST] Paris </s>[INST] London? [/INST]"
    assert [spoken(tokens, m).strip() for m in range(4)] == [content for _, content in TALK]
    assert notes == ("The chat template refuses system messages, so their text stands in front of the next user's.",)
    joiner = tokens.text.index(JOINER)
    inside = [m for (s, _), m in zip(tokens.offsets or (), tokens.message, strict=True) if joiner <= s < joiner + 2]
    assert inside == [-1, -1]
    own = tokenizer.apply_chat_template(chat((USER, "the system\n\nHello world"), *TALK[2:]))["input_ids"]
    assert list(tokens.ids) == own


def test_an_empty_system_message_a_template_refuses_is_left_out():
    tokens, notes = encode(tiny.llama_style(), chat((SYSTEM, ""), (USER, "Hello")), kind="decoder")
    assert tokens.text == "<s>[INST] Hello [/INST]"
    assert tokens.roles.count(USER) == 1
    assert notes == ("The chat template refuses system messages, so the empty one was left out.",)


@pytest.mark.parametrize("template", [tiny.CHATML, tiny.SKIPS_EMPTY_SYSTEM])
def test_an_empty_system_message_has_no_tokens(template: str):
    tokens, notes = encode(tiny.byte_level(template), chat((SYSTEM, ""), (USER, "user")), kind="decoder")
    assert spoken(tokens, 0) == ""
    assert spoken(tokens, 1) == "user"
    assert SYSTEM not in tokens.roles
    assert not notes


def test_a_template_that_refuses_the_chat_even_without_system_is_named():
    strict = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    with pytest.raises(InputError, match=r"refuses this chat \(user first\)"):
        encode(tiny.byte_level(strict), chat((ASSISTANT, "a"), (USER, "b")), kind="decoder")
    with pytest.raises(InputError, match="System role not supported"):
        encode(tiny.llama_style(), chat((SYSTEM, "only")), kind="decoder")


def test_stripped_thinking_leaves_the_answer():
    thought = "<think>\nthe thing\n</think>\n\nAnswer Paris"
    messages = chat((USER, "Hello"), (ASSISTANT, thought), (USER, "Answer"))
    tokens, notes = encode(tiny.byte_level(tiny.STRIPS_THINKING), messages, kind="decoder")
    assert "the thing" not in tokens.text
    assert [spoken(tokens, m) for m in range(3)] == ["Hello", "Answer Paris", "Answer"]
    assert notes == ("The chat template leaves out the thinking span of message 1.",)


def test_rewritten_thinking_tags_are_the_templates():
    messages = chat((USER, "Hello"), (ASSISTANT, "<think>the thing</think>Answer "))
    tokens, notes = encode(tiny.byte_level(tiny.STRIPS_THINKING), messages, kind="decoder")
    assert tokens.text.endswith("<think>\nthe thing\n</think>\n\nAnswer ")
    assert spoken(tokens, 1) == "the thingAnswer "
    assert notes == ("The chat template writes the thinking tags of message 1 itself.",)


def test_kept_thinking_is_content():
    messages = chat((USER, "Hello"), (ASSISTANT, "<think>x</think> y"), (USER, "z"))
    tokens, notes = encode(tiny.byte_level(), messages, kind="decoder")
    assert spoken(tokens, 1) == "<think>x</think> y"
    assert not notes


def test_several_end_tokens_are_template_and_typed_ones_are_content():
    tokenizer = tiny.byte_level(tiny.SEVERAL_ENDS)
    tokens, notes = encode(tokenizer, chat((USER, "a</s></s>b<|im_end|>"), (ASSISTANT, "x")), kind="decoder")
    assert spoken(tokens, 0) == "a</s></s>b<|im_end|>"
    assert tokens.text == "<s><|im_start|>user\na</s></s>b<|im_end|><|im_end|></s></s>\n<|im_start|>assistant\nx"
    ends = [(m, s) for p, m, s in zip(tokens.pieces, tokens.message, tokens.special, strict=True) if p == "</s>"]
    assert ends == [(0, False), (0, False), (-1, True), (-1, True)]
    assert notes == ("Message 0 contains a control token of the model, which is read as such.",)


def test_trimmed_content_is_found_trimmed():
    messages = chat((USER, "\n Hello \n"), (ASSISTANT, " Paris "))
    tokens, _ = encode(tiny.byte_level(tiny.TRIMS), messages, kind="decoder")
    assert [spoken(tokens, m) for m in (0, 1)] == ["Hello", "Paris"]
    assert tokens.text.endswith("assistant\nParis")


def test_content_equal_to_the_templates_own_words_is_told_apart():
    messages = chat((USER, "user"), (ASSISTANT, "user\nassistant"), (USER, "\n"), (USER, "assistant"))
    tokens, _ = encode(tiny.byte_level(), messages, kind="decoder")
    # The third message shares its one token with the line break in front of it.
    assert [spoken(tokens, m) for m in range(4)] == ["user", "user\nassistant", "\n\n", "assistant"]


def test_repeated_content_is_marked_each_time():
    rendered = render_chat(tiny.byte_level(tiny.REPEATS), [(USER, "Hello"), (ASSISTANT, "x"), (USER, "Hello")])
    for message, content in ((0, "Hello"), (1, "x"), (2, "Hello")):
        assert [rendered.text[s:e] for s, e in rendered.ranges[message]] == [content, content]
    assert not rendered.notes


def test_a_repeating_template_is_left_open_after_the_last_copy():
    rendered = render_chat(tiny.byte_level(tiny.REPEATS), [(USER, "Hello"), (ASSISTANT, "x")])
    assert rendered.text.endswith("<|im_start|>assistant\nx\nAgain: x")


def test_changed_content_is_still_found():
    rendered = render_chat(tiny.byte_level(tiny.UPPERS), [(USER, "A map"), (ASSISTANT, "ok")], continue_chat=False)
    assert [rendered.text[s:e] for spans in rendered.ranges for s, e in spans] == ["4 M4P", "OK"]


def test_a_template_that_looks_into_the_content_falls_back_to_search_with_a_note():
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{{ m['content'] | length }};{% endfor %}"
    rendered = render_chat(tiny.byte_level(template), [(USER, "Hello"), (USER, "Hello")])
    assert rendered.text == "user: Hello5;user: Hello5;"
    assert rendered.ranges == (((6, 11),), ((19, 24),))
    assert len(rendered.notes) == 2
    assert "searching" in rendered.notes[0]


def test_content_that_a_template_drops_is_said():
    template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}\n{% endfor %}"
    tokens, notes = encode(tiny.byte_level(template), chat((SYSTEM, "gone"), (USER, "Hello")), kind="decoder")
    assert [spoken(tokens, m) for m in (0, 1)] == ["", "Hello"]
    assert notes == ("The text of message 0 does not appear as such in the prompt, so none of it is a unit.",)


def test_nothing_located_keeps_the_words_as_units():
    template = "{% for m in messages %}{{ m['content'] | length }} Hello{% endfor %}"
    tokens, notes = encode(tiny.byte_level(template), chat((USER, "thing")), kind="decoder")
    assert tokens.text == "5 Hello"
    assert not any(tokens.special)
    assert len(notes) == 1


def test_a_last_message_that_cannot_be_left_open_is_said():
    template = "{% for m in messages %}{{ m['content'] | length }};{% endfor %}"
    rendered = render_chat(tiny.byte_level(template), [(USER, "a"), (ASSISTANT, "b")])
    assert rendered.text == "1;1;"
    assert rendered.notes[-1].startswith("The last message could not be left open")


def test_random_chats_give_back_every_message():
    draw = random.Random(7)
    words = [
        "Hello",
        "user",
        "assistant",
        "\n",
        " ",
        "é",
        "<think>",
        "</think>",
        "👩‍🔬",
        "[INST]",
        "<|im_end|>",
        "؟",
        "\x00",
    ]
    for name in ("CHATML", "SEVERAL_ENDS", "REPEATS"):
        tokenizer = tiny.byte_level(getattr(tiny, name))
        for _ in range(15):
            turns = [
                (draw.choice((SYSTEM, USER, ASSISTANT)), "".join(draw.choices(words, k=draw.randint(1, 6))))
                for _ in range(draw.randint(1, 5))
            ]
            rendered = render_chat(tokenizer, turns)
            for (_, content), spans in zip(turns, rendered.ranges, strict=True):
                assert [rendered.text[s:e] for s, e in spans] == [content] * (2 if name == "REPEATS" else 1)
            tokens, _ = encode(tokenizer, chat(*turns), kind="decoder")
            assert "".join(tokens.pieces) == rendered.text


def test_a_slow_tokenizer_knows_roles_where_its_text_can_be_rebuilt():
    tokenizer = tiny.SlowBytes()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + '\n' }}{% endfor %}"
    tokens, notes = encode(tokenizer, chat((USER, "é"), (USER, "b")), kind="decoder")
    assert tokens.pieces == (*"user:", "é", "", "\n", *"user:", "b", "\n")
    assert tokens.message == (*(-1,) * 5, 0, 0, *(-1,) * 6, 1, -1)
    assert not notes
    lossy = tiny.SlowWords()
    lossy.chat_template = tokenizer.chat_template
    tokens, notes = encode(lossy, chat((USER, "Hello snow")), kind="decoder")
    assert set(tokens.message) == {-1}
    assert notes == ("The tokenizer does not say where its tokens are in the text, so chat roles are unknown.",)


def test_tokens_on_the_border_belong_to_the_message_unless_they_share_only_spaces():
    text, ranges = "[INST] Hi [/INST]", [[(7, 10)]]  # "Hi " is content
    tokens = [(0, 6), (6, 8), (8, 9), (9, 11), (11, 11), (11, 17)]  # "[INST]" " H" "i" " [" "" "/INST]"
    assert message_of_tokens(text, tokens, ranges) == (-1, 0, 0, -1, -1, -1)
    assert message_of_tokens(text, [(0, 7), (7, 17)], ranges) == (-1, 0)


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]
    assert read_messages([{"role": USER, "content": parts, "tool_calls": None}]) == [(USER, "Hello world")]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([], "no messages"),
        ([{"role": USER}], "Message 0 of the chat has no 'content'"),
        ([{"role": USER, "content": "a"}, {"content": "x"}], "Message 1 of the chat has no 'role'"),
        ([{"role": USER, "content": None}], "has no 'content'"),
        ([{"role": 3, "content": "x"}], "has the role 3"),
        ([{"role": USER, "content": "x", "name": "z"}], "the key 'name'"),
        ([{"role": USER, "content": 5}], "of type int"),
        ([{"role": USER, "content": [{"type": "image", "url": "x"}]}], "part of type 'image', but only text"),
        ([{"role": USER, "content": ["x"]}], "part of type 'str'"),
        ([{"role": USER, "content": "x"}, "y"], "Message 1 of the chat is of type str"),
    ],
)
def test_bad_messages_are_refused_in_one_sentence(messages: list, sentence: str):
    with pytest.raises(InputError, match=sentence):
        read_messages(messages)


def test_no_template_and_lone_surrogates_are_refused():
    with pytest.raises(InputError, match=r"no chat template; set tokenizer\.chat_template"):
        encode(tiny.byte_level(None), chat((USER, "x")), kind="decoder")
    with pytest.raises(InputError, match=r"Message 1 of the chat has the lone surrogate U\+DC00 at position 2"):
        encode(tiny.byte_level(), chat((USER, "x"), (USER, "ab\udc00")), kind="decoder")
    with pytest.raises(InputError, match="is empty"):
        encode(tiny.byte_level(), chat((USER, "")), kind="decoder")


def test_the_chat_is_left_as_it_was_given():
    messages = chat(*TALK)
    encode(tiny.llama_style(), messages, kind="decoder")
    assert messages == chat(*TALK)
