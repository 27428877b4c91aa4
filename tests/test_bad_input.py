"""Bad input gives one clear sentence, or a right result, and leaves the model as it was."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from pellucid import PellucidError, Target
from pellucid.core.errors import (
    CapabilityError,
    FileError,
    InputError,
    ModelError,
    TargetError,
)
from tests.bad_input import wrong_types
from tests.bad_input.small import (
    PROMPT,
    classifier,
    decoder,
    decoder_tokenizer,
    headless,
    language_model,
    masked,
    position_limited,
    refused,
    saved,
)
from tests.conftest import ROOT

METHODS = ("gradient_x_input", "occlusion")


def attribute(prompt: Any, subject: Any = None, method: str = "gradient_x_input", **options: Any) -> Any:
    return pellucid.run(method, language_model() if subject is None else subject, prompt, **options)


def patch(subject: Any, site: str) -> Any:
    return pellucid.run("activation_patching", subject, [1, 5], corrupt=[1, 6], target=7, site=site)


PROMPTS = {
    "empty text": ("", "empty"),
    "empty list": ([], "empty"),
    "empty chat content": ([{"role": "user"}], "content"),
    "no prompt": (None, "prompt"),
    "bytes": (b"Hello", "prompt"),
    "number": (7, "prompt"),
    "negative id": ([3, -1], "-1", "vocabulary"),
    "id over the vocabulary": ([3, 99999], "99999", "vocabulary"),
    "id of another type": ([3, 4.5], "float"),
    "pair for a decoder": (("Hello", "world"), "pair", "decoder"),
    "over the limit": ("Hello " * 200, "64", "shorten"),
    "lone surrogate": ("Hello \ud800 world", "surrogate", "U+D800", "position 6"),
}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("method", [*METHODS, "explain"])
def test_a_prompt_that_cannot_be_used(name: str, method: str) -> None:
    prompt, *words = PROMPTS[name]
    subject = language_model()
    if method == "explain" and name in ("no prompt", "number"):
        return  # among the arguments of a wrong type, below
    if method == "explain":
        refused(lambda: pellucid.explain(subject, prompt), InputError, *words, subject=subject)  # type: ignore[arg-type]
    else:
        refused(lambda: attribute(prompt, method=method), InputError, *words, subject=subject)


def test_one_bad_prompt_among_many_is_named() -> None:
    subject = language_model()
    refused(lambda: attribute(["Hello", ""]), InputError, "Prompt 2 of 2", "empty", subject=subject)
    refused(lambda: pellucid.explain(subject, ["Hello", ""]), InputError, "Prompt 2 of 2", "empty", subject=subject)


def test_a_continuation_over_the_limit() -> None:
    """The prompt fits and the target does not: a model of fixed positions would otherwise fail inside."""
    subject = position_limited()
    prompt, target = [5] * 60, Target.continuation([6] * 10)
    for method in METHODS:
        refused(
            lambda name=method: attribute(prompt, subject, name, target=target), InputError, "60", "64", subject=subject
        )
    refused(lambda: pellucid.explain(subject, prompt, generate=20), InputError, "60", "64", subject=subject)


def two_tokens() -> dict[str, tuple[Callable[[], Any], Any]]:
    several = Target(" Paris and London", kind="next")
    return {
        "next token": (lambda: attribute(PROMPT, target=several), language_model()),
        "masked word": (lambda: attribute("the [MASK] is good", masked(), target="playing"), masked()),
        "class": (lambda: attribute("good movie", classifier(), target=[0, 1]), classifier()),
    }


@pytest.mark.parametrize("case", ["next token", "masked word", "class"])
def test_a_target_of_two_tokens_where_one_is_needed(case: str) -> None:
    call, subject = two_tokens()[case]
    refused(call, TargetError, "one", subject=subject)


TARGETS: dict[str, tuple[Callable[[], Any], Any, tuple[str, ...]]] = {
    "id out of range": (language_model, 360, ("360", "0 to 359")),
    "negative id": (language_model, -1, ("-1", "0 to 359")),
    "empty text": (language_model, "", ("empty",)),
    "no ids": (language_model, [], ("empty",)),
    "continuation without text": (language_model, Target(kind="continuation"), ("continuation", "generated")),
    "generation of nothing": (language_model, Target.generated(0), ("length", "1")),
    "similarity of a language model": (language_model, Target.similarity("Hello"), ("similarity", "head")),
    "class of a language model": (language_model, Target(1, kind="class"), ("class", "causal-lm")),
    "entropy with a contrast": (language_model, Target(5, 6, measure="entropy"), ("entropy", "contrast")),
    "each with another length": (
        language_model,
        Target.continuation([5, 6], contrast=[7], each=True),
        ("same length", "2", "1", "each=True"),
    ),
    "unknown class": (classifier, "goo", ("goo", "did you mean 'good'")),
    "class out of range": (classifier, 3, ("3", "0 to 2")),
    "generation by a classifier": (classifier, Target.generated(3), ("generated", "classification")),
    "continuation by a classifier": (classifier, Target.continuation([1, 2]), ("continuation", "classification")),
    "generation by a masked model": (masked, Target.generated(3), ("generated", "masked-lm")),
    "token without a head": (headless, 5, ("head", "similarity")),
    "nothing without a head": (headless, None, ("head", "similarity")),
    "contrast of similarities": (headless, Target("a", "b", kind="similarity"), ("similarity", "contrast")),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_the_model_does_not_have(name: str) -> None:
    make, target, words = TARGETS[name]
    subject = make()
    prompt = "the [MASK] is good" if subject.head == "masked-lm" else PROMPT
    for method in METHODS:
        refused(
            lambda name=method: attribute(prompt, subject, name, target=target), TargetError, *words, subject=subject
        )
    refused(lambda: pellucid.explain(subject, prompt, target=target), TargetError, *words, subject=subject)


def test_a_masked_model_without_a_mask_in_the_prompt() -> None:
    refused(lambda: attribute("the movie is good", masked()), TargetError, "[MASK]", subject=masked())


def test_a_target_that_is_no_text() -> None:
    refused(lambda: attribute(PROMPT, target="\udfff"), InputError, "target", "surrogate", subject=language_model())


def test_a_contrast_given_twice() -> None:
    def call() -> Any:
        return attribute(PROMPT, target=Target(5, 6), contrast=7)

    refused(call, TargetError, "contrast", "once", subject=language_model())


def test_a_generated_target_beside_another() -> None:
    def call() -> Any:
        return pellucid.explain(language_model(), PROMPT, target=5, generate=2)

    refused(call, InputError, "target", "generate", subject=language_model())


FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "one number for all rows": (lambda logits: logits.sum(), "row"),
    "three dimensions": (lambda logits: logits[:, None, None] * 1.0, "row"),
    "a float": (lambda logits: 3.0, "float"),
    "NaN": (lambda logits: logits[:, 0] * math.nan, "NaN"),
    "too few rows": (lambda logits: logits[:0, 0], "row"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_target_function_that_returns_something_else(name: str) -> None:
    function, word = FUNCTIONS[name]
    subject = language_model()
    for method in METHODS:
        refused(
            lambda name=method: attribute(PROMPT, subject, name, target=function), PellucidError, word, subject=subject
        )


def test_a_target_function_that_raises_is_shown_with_its_own_error() -> None:
    def crooked(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 0] / (1 // 0)

    error = refused(
        lambda: attribute(PROMPT, target=crooked), TargetError, "crooked", "ZeroDivisionError", subject=language_model()
    )
    assert isinstance(error.__cause__, ZeroDivisionError)


def without_pad() -> Any:
    return pellucid.load(decoder(pad_token_id=None), decoder_tokenizer())


MIXED_UP: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "prompt and subject, run": (
        lambda: pellucid.run("occlusion", PROMPT, language_model()),
        ("subject", "pellucid.load"),
    ),
    "a bare model": (lambda: pellucid.run("occlusion", language_model().model, PROMPT), ("subject", "pellucid.load")),
    "an unknown parameter": (lambda: attribute(PROMPT, unt="word"), ("unt", "did you mean 'unit'")),
    "an unknown unit": (lambda: attribute(PROMPT, unit="wrod"), ("wrod", "did you mean 'word'")),
    "a unit outside the prompt": (lambda: attribute([1, 5], unit=[(0, 9)]), ("(0, 9)", "2 tokens")),
    "no steps": (lambda: attribute(PROMPT, method="integrated_gradients", steps=0), ("steps", "0", "at least 1")),
    "a true target": (lambda: attribute(PROMPT, target=True), ("target", "True")),
    "a true target, explain": (lambda: pellucid.explain(language_model(), PROMPT, target=True), ("target", "True")),
    "generating less than nothing": (
        lambda: pellucid.explain(language_model(), PROMPT, generate=-1),
        ("generate", "-1"),
    ),
    "a negative budget": (lambda: pellucid.explain(language_model(), PROMPT, budget=-1.0), ("budget", "-1")),
    "no methods": (lambda: pellucid.explain(language_model(), PROMPT, methods=[]), ("method",)),
    "a method for pairs": (
        lambda: pellucid.explain(language_model(), PROMPT, methods="activation_patching"),
        ("activation_patching", "pair"),
    ),
    "a replacement out of range": (lambda: attribute(PROMPT, method="occlusion", replacement=360), ("360", "0 to 359")),
    "a baseline out of range": (
        lambda: attribute(PROMPT, method="integrated_gradients", baseline=360),
        ("360", "0 to 359"),
    ),
    "a baseline of another shape": (
        lambda: attribute(PROMPT, method="integrated_gradients", baseline=torch.zeros(5)),
        ("baseline", "5"),
    ),
    "a mask for a model without": (
        lambda: attribute([5, 6], without_pad(), "occlusion", replacement="mask"),
        ("mask", "delete"),
    ),
    "prompts of unequal length": (
        lambda: pellucid.run("activation_patching", language_model(), [1, 5], corrupt=[1, 5, 6]),
        ("2 tokens", "3", "length"),
    ),
}


@pytest.mark.parametrize("name", MIXED_UP)
def test_mixed_up_arguments(name: str) -> None:
    call, words = MIXED_UP[name]
    refused(call, InputError, *words, subject=language_model())


@pytest.mark.slow
def test_arguments_of_a_wrong_type() -> None:
    """In a process of its own, because the type checks of these tests would come before what users see."""
    command = [sys.executable, "-m", "tests.bad_input.wrong_types"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(wrong_types.CASES)} refused"


def test_an_unknown_method() -> None:
    words = ("did you mean", "integrated_gradients")
    refused(lambda: attribute(PROMPT, method="integrated_gradient"), InputError, *words, subject=language_model())
    refused(lambda: pellucid.explain(language_model(), PROMPT, methods="integratedgradients"), InputError, *words)


def test_a_method_that_the_subject_cannot_run() -> None:
    box = pellucid.load(lambda texts: [0.0] * len(texts))
    refused(lambda: attribute("a b", box), CapabilityError, "gradients", "scores")
    refused(lambda: pellucid.explain(box, "a b", methods="integrated_gradients"), CapabilityError, "gradients")
    refused(
        lambda: pellucid.explain(classifier(), PROMPT, generate=2),
        PellucidError,
        "classification",
        subject=classifier(),
    )


MODELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "zoo": ("zoo:tiny-ml", ("zoo:tiny-ml",)),
    "folder": ("./no/such/folder", ("no/such/folder",)),
    "hub": ("no-such-model-anywhere", ("no-such-model-anywhere",)),
    "number": (3, ("int",)),
    "tokenizer": (decoder_tokenizer, ("pass",)),
    "module": (torch.nn.Linear(2, 2), ("transformers",)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_be_loaded(name: str) -> None:
    given, words = MODELS[name]
    refused(lambda: pellucid.load(given() if name == "tokenizer" else given), ModelError, *words)


def test_nan_weights_at_load_and_later() -> None:
    model = decoder()
    subject = pellucid.load(model, decoder_tokenizer())
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    refused(lambda: pellucid.load(model), ModelError, "layers.1.mlp.down_proj.weight", "NaN")
    for method in (*METHODS, "shapley_values", "integrated_gradients", "smoothgrad", "gradient_norm"):
        refused(lambda name=method: attribute(PROMPT, subject, name), ModelError, "NaN", subject=subject)
    refused(lambda: pellucid.explain(subject, PROMPT), ModelError, "NaN", subject=subject)
    refused(lambda: patch(subject, "resid_pre"), ModelError, "NaN", subject=subject)


def test_a_wrong_device_or_dtype(tmp_path: Path) -> None:
    refused(lambda: pellucid.load(decoder(), device="cuda:9"), ModelError, "cuda:9", "cpu")
    refused(lambda: pellucid.load(decoder(), device="gpu"), ModelError, "gpu", "cpu")
    refused(lambda: pellucid.load(saved(tmp_path), dtype="float31"), ModelError, "float31")


def test_a_corrupted_safetensors_file(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for wrong in (whole[: len(whole) // 2], b"\xff" * 100, b"", whole[:8] + b"x" * 50 + whole[58:]):
        weights.write_bytes(wrong)
        refused(lambda: pellucid.load(str(folder)), ModelError, "model")
    result = attribute(PROMPT)
    result.save(tmp_path / "result")
    tensors = tmp_path / "result" / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 0xFF
    for wrong in (bytes(content), bytes(content[:-1]), b""):
        tensors.write_bytes(wrong)
        refused(lambda: pellucid.open(tmp_path / "result"), FileError, "tensors")


BOXES: dict[str, tuple[Callable[[list[str]], Any], tuple[str, ...]]] = {
    "NaN": (lambda texts: [math.nan] * len(texts), ("NaN",)),
    "infinity": (lambda texts: [-math.inf] * len(texts), ("infinite",)),
    "too few": (lambda texts: [0.5], ("1", "per text")),
    "nothing": (lambda texts: None, ("per text",)),
    "words": (lambda texts: ["good"] * len(texts), ("number",)),
    "rows of unequal length": (lambda texts: [[1.0] * (1 + i) for i in range(len(texts))], ("number",)),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_black_box_that_returns_something_else(name: str) -> None:
    function, words = BOXES[name]
    refused(lambda: attribute("a good film", pellucid.load(function), "occlusion"), ModelError, *words)
    refused(lambda: pellucid.explain(pellucid.load(function), "a good film"), ModelError, *words)


def test_a_black_box_that_is_asked_for_something_else() -> None:
    box = pellucid.load(lambda texts: [[0.1, 0.9]] * len(texts))
    refused(lambda: attribute("a film", box, "occlusion", target=2), TargetError, "2", "0 to 1")
    refused(lambda: attribute("a film", box, "occlusion", target="good"), TargetError, "good")
    refused(lambda: attribute([1, 2], box, "occlusion"), InputError, "text")
    refused(lambda: attribute("  ", box, "occlusion"), InputError, "empty")
    refused(lambda: attribute("a film", box, "occlusion", replacement=3), InputError, "delete")
