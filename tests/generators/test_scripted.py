"""The interface and the scripted generator: as right as it says, always the same, calibrated."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pellucid.core.errors import GeneratorError, InputError
from pellucid.generators import YES_NO, Generator, Reply, Request, ScriptedGenerator, answers, ask_yes_no


def even(question: str) -> str:
    return "yes" if int(question) % 2 == 0 else "no"


QUESTIONS = [str(number) for number in range(600)]


@pytest.mark.parametrize("skill", [0.0, 0.3, 0.8, 1.0])
def test_it_is_right_as_often_as_its_skill(skill: float) -> None:
    generator = ScriptedGenerator(even, skill)
    texts = [reply.text for reply in generator.generate([Request(question) for question in QUESTIONS])]
    right = sum(text == even(question) for text, question in zip(texts, QUESTIONS, strict=True)) / 600
    assert set(texts) <= {"yes", "no"}
    assert abs(right - skill) <= 4 * math.sqrt(skill * (1 - skill) / 600)


def test_yes_no_answers_have_the_skill_and_are_calibrated() -> None:
    chances = ask_yes_no(ScriptedGenerator(even, 0.8), QUESTIONS)
    assert {round(chance, 9) for chance in chances} == {0.8, 0.2}
    pairs = zip(chances, QUESTIONS, strict=True)
    right = sum((chance > 0.5) == (even(question) == "yes") for chance, question in pairs)
    assert abs(right / 600 - 0.8) <= 4 * math.sqrt(0.16 / 600)
    sure = ask_yes_no(ScriptedGenerator(even), ["2", "3"])
    assert sure == pytest.approx([1 - 1e-6, 1e-6])


def test_each_request_has_its_own_fixed_answer() -> None:
    requests = [Request(question) for question in QUESTIONS]
    once = ScriptedGenerator(even, 0.5).generate(requests)
    backwards = ScriptedGenerator(even, 0.5).generate(requests[::-1])[::-1]
    assert once == backwards
    assert ScriptedGenerator(even, 0.5, seed=1).generate(requests) != once


def test_samples_differ_only_when_warm() -> None:
    generator = ScriptedGenerator(even, 0.5)
    warm, cold = generator.generate([Request("2", n=40, temperature=1.0), Request("2", n=40)])
    assert set(warm.texts) == {"yes", "no"}
    assert len(set(cold.texts)) == 1


def test_choices_come_from_the_request() -> None:
    generator = ScriptedGenerator(lambda question: "blue", 0.4)
    replies = generator.generate([Request(q, choices=("red", ("blue", "azure"), "green")) for q in QUESTIONS])
    share = {name: sum(reply.text == name for reply in replies) / 600 for name in ("red", "blue", "green")}
    assert share == pytest.approx({"red": 0.3, "blue": 0.4, "green": 0.3}, abs=0.08)
    for reply in replies:
        assert math.fsum(math.exp(value) for value in reply.choice_log_probs or ()) == pytest.approx(1.0)
    with pytest.raises(InputError, match="none of the choices"):
        generator.generate([Request("x", choices=("red", "green"))])


def test_it_reads_the_last_user_message_and_stops_where_it_should() -> None:
    chat = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "?"}, {"role": "user", "content": "2"}]
    generator = ScriptedGenerator(lambda question: f"{question}: a. b")
    assert generator.generate([Request(chat, stop=(".",))])[0].text == "2: a"


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        ScriptedGenerator(even, 1.5)
    with pytest.raises(InputError, match="has no alternative"):
        ScriptedGenerator(even, 0.0, alternatives=("yes",)).generate([Request("2")])


BAD: list[dict[str, Any]] = [
    {"prompt": ""}, {"prompt": []}, {"prompt": [{"role": "user"}]}, {"prompt": "a", "max_tokens": 0},
    {"prompt": "a", "n": 0}, {"prompt": "a", "temperature": -1.0}, {"prompt": "a", "temperature": math.nan},
    {"prompt": "a", "top_p": 0.0},
    {"prompt": "a", "stop": ("",)}, {"prompt": "a", "choices": ("a",)}, {"prompt": "a", "choices": ("a", "a")},
    {"prompt": "a", "choices": ("a", "")}, {"prompt": "a", "choices": "yes"}, {"prompt": "a", "choices": ("a", ())},
]  # fmt: skip


@pytest.mark.parametrize("settings", BAD)
def test_a_request_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Request(**settings)


def test_a_request_cannot_be_changed_from_outside() -> None:
    chat = [{"role": "user", "content": "a"}]
    request = Request(chat, stop=["x"], choices=["a", ["b", "c"]])
    chat[0]["content"] = "b"
    request.messages[0]["content"] = "b"
    assert request.messages == [{"role": "user", "content": "a"}]
    assert request == Request([{"role": "user", "content": "a"}], stop=("x",), choices=("a", ("b", "c")))
    assert len({request, Request("a"), Request("a")}) == 2


def test_yes_no_is_renormalised_and_never_overflows() -> None:
    class Fixed:
        name = "fixed"
        values: tuple[float, float] | None = (0.0, 0.0)

        def generate(self, requests: Sequence[Request]) -> list[Reply]:
            assert all(request.choices == YES_NO for request in requests)
            return [Reply(("yes",), self.values)] * len(requests)

    fixed = Fixed()
    assert isinstance(fixed, Generator)
    cases = [((math.log(0.3), math.log(0.1)), 0.75), ((-1e4, -2.0), 0.0), ((-2.0, -1e4), 1.0)]
    cases.append(((-math.inf, -math.inf), 0.5))
    for values, expected in cases:
        fixed.values = values
        assert ask_yes_no(fixed, ["a"]) == pytest.approx([expected])
    fixed.values = None
    with pytest.raises(GeneratorError, match="without scores"):
        ask_yes_no(fixed, ["a"])
    with pytest.raises(InputError, match="a list of questions"):
        ask_yes_no(fixed, "a")
    fixed.generate = lambda requests: []
    with pytest.raises(GeneratorError, match="gave 0 answers"):
        list(answers(fixed, [Request("a")]))


def test_the_package_loads_without_torch_or_the_servers_client() -> None:
    code = "import sys, pellucid.generators as g; g.ServerGenerator; assert not {'torch', 'openai'} & set(sys.modules)"
    source = Path(__file__).resolve().parents[2] / "src"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, check=True)


def test_without_the_client_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from pellucid.core.errors import MissingExtra
    from pellucid.generators import ServerGenerator

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r'pip install "pellucid\[llm\]"'):
        ServerGenerator("m", base_url="http://127.0.0.1/v1")
