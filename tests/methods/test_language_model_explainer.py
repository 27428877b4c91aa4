"""A language model as explainer, with scripted ones that read their prompt: what they need is in it."""

import re

import numpy as np
import pytest

import pellucid
from pellucid.core.errors import CapabilityError, GeneratorError
from pellucid.generators import ScriptedGenerator
from pellucid.methods.attribution.language_model_explainer import language_model_explainer
from tests import plain

WEIGHTS = {"alpha": 0.2, "beta": -3.0, "gamma": 0.0, "delta": 2.0, "eta": 1.0, "theta": 0.1}
TEXT = " ".join(WEIGHTS)


def model(texts: list[str]) -> list[float]:
    return [sum(w for word, w in WEIGHTS.items() if word in t.split()) for t in texts]


def solve(prompt: str) -> str:
    """Fit a line to the numbers in the prompt and name the largest weights."""
    rows = re.findall(r"^((?:[01] )*[01]) -> (-?[\d.e+-]+)$", prompt, re.MULTILINE)
    bits = np.array([[float(b) for b in row.split()] for row, _ in rows])
    numbers = np.array([float(n) for _, n in rows])
    fitted = np.linalg.lstsq(np.c_[bits, np.ones(len(bits))], numbers, rcond=None)[0][:-1]
    best = np.argsort(-np.abs(fitted), kind="stable")[:3] + 1
    return f"I compared 16 lines.\nAnswer: {', '.join(map(str, best))}"


@pytest.mark.parametrize("prompting", ["perturbation", "prediction", "instruction", "explanation"])
def test_a_perfect_reader_finds_the_words(prompting: str) -> None:
    found = language_model_explainer(
        pellucid.load(model), TEXT, generator=ScriptedGenerator(solve), prompting=prompting, samples=24
    )
    np.testing.assert_array_equal(found.scores, [0, 3, 0, 2, 1, 0])
    assert found.evidence[0].ok
    assert found.evidence[0].values["named"] == pytest.approx(2)


def test_worked_examples_and_held_out_lines_are_shown() -> None:
    seen: list[str] = []

    def read(prompt: str) -> str:
        seen.append(prompt)
        return solve(prompt)

    for prompting in ("perturbation", "prediction", "explanation"):
        language_model_explainer(
            pellucid.load(model), TEXT, generator=ScriptedGenerator(read), prompting=prompting, samples=12
        )
    plain_prompt, held, worked = seen
    assert "?" not in plain_prompt
    assert len(re.findall(r"-> \?", held)) == 3
    answers = re.findall(r"^((?:[01] )*[01]) -> .*\nAnswer: ([\d, ]+)$", worked, re.MULTILINE)
    assert len(answers) == 2
    for bits, named in answers:
        present = [b == "1" for b in bits.split()]
        order = np.argsort(-np.abs([w if p else 0 for w, p in zip(WEIGHTS.values(), present, strict=True)]))
        expected = [int(i) + 1 for i in order[:3] if present[i]]
        assert [int(n) for n in named.split(",")] == expected


def test_the_skill_of_the_generator_is_the_skill_of_the_explanation() -> None:
    subject, wrong = pellucid.load(model), ("Answer: 1, 3, 6",)
    right = 0
    for seed in range(60):
        writer = ScriptedGenerator(solve, 0.7, alternatives=wrong)
        found = language_model_explainer(subject, TEXT, generator=writer, samples=16, seed=seed)
        hit = bool(found.scores[1] == 3)
        right += hit
        assert found.evidence[0].ok == hit
    assert 0.7 * 60 - 3 * (60 * 0.21) ** 0.5 <= right <= 0.7 * 60 + 3 * (60 * 0.21) ** 0.5


def test_an_answer_without_units_is_an_error() -> None:
    with pytest.raises(GeneratorError, match="no idea"):
        language_model_explainer(pellucid.load(model), TEXT, generator=ScriptedGenerator(lambda text: "no idea"))
    with pytest.raises(CapabilityError, match="generator="):
        language_model_explainer(pellucid.load(model), TEXT)
    with pytest.raises(CapabilityError):
        language_model_explainer(pellucid.load(plain.tiny("bert-classifier")), plain.IDS, target=1)
