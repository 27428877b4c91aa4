"""The constructed models compute what they state, with the parts they name and no others."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

import pellucid
from pellucid.zoo import truth
from pellucid.zoo.truth import _weights
from pellucid.zoo.truth._program import SCALE, Program, execute
from pellucid.zoo.truth.build import build

NAMES = truth.names()
CLOSE = 1e-3  # logits; answers are SCALE = 10 apart, or a share of that


def asked(program: Program) -> list[str]:
    """Return the words whose logits the stated function gives; the blank's is nobody's answer."""
    return sorted({word for _, word, _ in program.logits if word != "_"})


def logits(model: Any, program: Program, prompts: Any) -> np.ndarray:
    """Return the logits behind each prompt: [prompts, vocabulary], with plain calls of the model."""
    found: list[tuple[int, np.ndarray]] = []
    for length in {len(words) for words in prompts}:
        places = [i for i, words in enumerate(prompts) if len(words) == length]
        ids = torch.tensor([program.ids(prompts[i]) for i in places])
        with torch.no_grad():
            found += zip(places, model(input_ids=ids).logits[:, -1].double().numpy(), strict=True)
    return np.stack([row for _, row in sorted(found, key=lambda pair: pair[0])])


def stated(program: Program, prompts: Any) -> np.ndarray:
    return np.array([[SCALE * program.value(words, word, None) for word in asked(program)] for words in prompts])


def columns(program: Program) -> list[int]:
    return [program.vocabulary.index(word) for word in asked(program)]


def committed(name: str) -> Any:
    pellucid.load  # noqa: B018 - registers the project's own class with transformers
    return AutoModelForCausalLM.from_pretrained(truth.FOLDER / name).eval()


def test_there_are_enough_and_they_are_small() -> None:
    assert len(NAMES) >= 6
    for name in NAMES:
        size = sum(file.stat().st_size for file in (truth.FOLDER / name).iterdir())
        assert size < 200_000
        assert (truth.FOLDER / name / "card.md").is_file()


@pytest.mark.slow
def test_building_again_gives_the_committed_files(tmp_path: Path) -> None:
    build(tmp_path)
    for name in NAMES:
        made, kept = tmp_path / name, truth.FOLDER / name
        new, old = load_file(made / "model.safetensors"), load_file(kept / "model.safetensors")
        assert new.keys() == old.keys()
        for key in new:
            np.testing.assert_array_equal(new[key], old[key])
        for file in ("answer.json", "card.md"):
            assert (made / file).read_text() == (kept / file).read_text()
        first, second = (json.loads((folder / "config.json").read_text()) for folder in (made, kept))
        assert {**first, "transformers_version": ""} == {**second, "transformers_version": ""}


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_compute_the_stated_function_on_all_short_inputs(name: str) -> None:
    program = truth.program(name)
    found = logits(committed(name), program, program.inputs)[:, columns(program)]
    np.testing.assert_allclose(found, stated(program, program.inputs), atol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_the_program_without_weights_computes_it_too(name: str) -> None:
    program = truth.program(name)
    prompts = program.inputs[:: max(1, len(program.inputs) // 300)]
    found = np.stack([SCALE * execute(program, words).logits[columns(program)] for words in prompts])
    np.testing.assert_allclose(found, stated(program, prompts), atol=1e-9)


def without(model: Any, layer: int, *, heads: tuple[int, ...] = (), neurons: tuple[int, ...] = ()) -> Any:
    """Return a copy whose named heads and neurons of one block write nothing."""
    cut = copy.deepcopy(model)
    gpt2 = hasattr(cut, "transformer")
    block = cut.transformer.h[layer] if gpt2 else cut.model.blocks[layer]
    # GPT-2 keeps matrices as [input, output], linear layers as [output, input].
    merge = block.attn.c_proj.weight if gpt2 else block.attn.o_proj.weight.T
    width = block.attn.head_dim
    with torch.no_grad():
        for head in heads:
            merge[head * width : (head + 1) * width] = 0
        if neurons:
            (block.mlp.c_proj.weight if gpt2 else block.mlp.down.weight.T)[list(neurons)] = 0
    return cut


@pytest.mark.parametrize("name", NAMES)
def test_ablating_a_named_part_matters_and_any_other_does_not(name: str) -> None:
    program, model = truth.program(name), committed(name)
    plain = logits(model, program, program.prompts)[:, columns(program)]

    def change(layer: int, **parts: tuple[int, ...]) -> float:
        cut = logits(without(model, layer, **parts), program, program.prompts)[:, columns(program)]
        return float(np.abs(cut - plain).max())

    twice = {"first finder", "second finder"}
    for layer, block in enumerate(program.blocks):
        for index, head in enumerate(block.heads):
            moved = change(layer, heads=(index,))
            assert moved > 1 if head.role and head.role not in twice else moved < CLOSE, head
        roles = [neuron.role for neuron in block.neurons]
        for index, role in enumerate(roles):
            moved = change(layer, neurons=(index,))
            assert moved > 1 if role else moved < CLOSE, (layer, index, role)
        idle_heads = tuple(i for i, head in enumerate(block.heads) if not head.role)
        idle_neurons = tuple(i for i, role in enumerate(roles) if not role)
        assert change(layer, heads=idle_heads, neurons=idle_neurons) < CLOSE
        finders = tuple(i for i, head in enumerate(block.heads) if head.role in twice)
        if finders:
            assert change(layer, heads=finders) > 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_loads_by_the_ordinary_path_with_all_proofs(name: str, dtype: str) -> None:
    subject = pellucid.load(f"zoo:truth/{name}", dtype=dtype)
    program = truth.program(name)
    words = program.prompts[0]
    assert subject.encode(" ".join(words)).ids == program.ids(words)
    assert subject.dtype == dtype
    assert type(subject.model).__name__ == ("GPT2LMHeadModel" if program.gpt2 else "TruthForCausalLM")


def test_the_largest_logit_is_the_answer() -> None:
    for name in NAMES:
        program = truth.program(name)
        best = logits(committed(name), program, program.prompts).argmax(1)
        assert [program.vocabulary[i] for i in best] == [program.ask(words)[0] for words in program.prompts]


def test_the_own_class_generates_with_and_without_its_cache() -> None:
    program = truth.program("induction")
    model = _weights.model(program)
    ids = torch.tensor([program.ids(("red", "blue", "red"))])
    found = [model.generate(ids, max_new_tokens=4, do_sample=False, use_cache=cache)[0] for cache in (True, False)]
    assert torch.equal(*found)
    assert [program.vocabulary[i] for i in found[0][4:]] == ["blue", "red", "blue", "red"]


def test_the_own_class_can_have_a_real_norm() -> None:
    from pellucid.models.constructed import TruthConfig, TruthForCausalLM

    config = TruthConfig(32, 16, 2, 8, mlp_widths=(12, 0, 12), norm="layer")
    subject = pellucid.load(TruthForCausalLM(config).eval())
    assert subject.layers == 3
