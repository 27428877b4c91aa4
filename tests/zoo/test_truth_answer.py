"""The shipped answers are the truth: by closed form, by patching the real weights, edge by edge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.zoo import truth
from pellucid.zoo.truth import _weights
from pellucid.zoo.truth._answer import receivers
from pellucid.zoo.truth._program import Program

NAMES = truth.names()
PATCHED = {"places": "resid_pre", "heads": "attn.z", "neurons": "mlp.post"}


def test_the_majority_is_known_in_closed_form() -> None:
    program, known = truth.program("majority"), truth.answer("majority")
    for item in known["prompts"]:
        words = [program.vocabulary[i] for i in item["ids"][1:]]
        winner = program.vocabulary[item["target"]]
        expected = [0.0 if word == "grey" else 10 / 6 if word == winner else -10 / 6 for word in words]
        np.testing.assert_allclose(item["truth"], expected, atol=1e-8)


def test_a_fact_is_shared_by_its_two_words() -> None:
    program, known = truth.program("fact"), truth.answer("fact")
    for item in known["prompts"]:
        words = [program.vocabulary[i] for i in item["ids"][1:]]
        np.testing.assert_allclose(item["truth"], [0.0 if word in ("the", "of") else 5.0 for word in words], atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_the_roles_are_the_parts_with_an_effect_in_some_pair(name: str) -> None:
    known = truth.answer(name)
    heads = np.sum([np.abs(np.array(pair["heads"])).sum(2) for pair in known["pairs"]], 0)
    assert [bool(heads[part["layer"], part["head"]]) for part in known["heads"]] == [
        p["relevant"] for p in known["heads"]
    ]
    moved = {(layer, neuron) for pair in known["pairs"] for layer, neuron, _, _ in pair["neurons"]}
    named = {(part["layer"], part["neuron"]) for part in known["neurons"] if part["relevant"]}
    assert moved <= named
    # Of two neurons that differ by one signal only, the second never decides alone.
    assert len(named - moved) <= (1 if known["redundant"] else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_patching_the_weights_gives_the_same_effects(name: str) -> None:
    """What the program says of every place, head and neuron, the real model says, too."""
    subject, known = pellucid.load(f"zoo:truth/{name}"), truth.answer(name)
    for pair in known["pairs"][:: len(known["pairs"]) // 4]:
        given = {"corrupt": pair["corrupt"], "target": pair["target"], "contrast": pair["contrast"]}
        for key, site in PATCHED.items():
            if key == "neurons" and not all(block.neurons for block in truth.program(name).blocks):
                continue
            found = pellucid.run("activation_patching", subject, pair["clean"], site=site, **given).values
            expected = np.zeros(found.shape)
            if key == "neurons":
                for layer, neuron, place, effect in pair[key]:
                    expected[layer, neuron, place] = effect
            else:
                expected[...] = pair[key]
            np.testing.assert_allclose(found, expected, atol=2e-3)


@contextmanager
def hooks(*planted: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in planted:
            hook.remove()


class Plain:
    """Two runs of a model of the project's own class, and the run in which one edge alone carries clean values."""

    def __init__(self, program: Program, pair: dict[str, Any]) -> None:
        self.program, self.pair, self.model = program, pair, _weights.model(program).double()
        self.clean, self.corrupt = self.writes(pair["clean"]), self.writes(pair["corrupt"])

    def score(self, ids: Any) -> float:
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
        value = logits[self.pair["target"]]
        return float(value if self.pair["contrast"] is None else value - logits[self.pair["contrast"]])

    def writes(self, ids: Any) -> dict[str, torch.Tensor]:
        """Return what every sender writes into the residual stream, and the stream before each block."""
        found = {"embed": self.model.model.tokens(torch.tensor([ids]))[0]}
        planted = []
        for layer, block in enumerate(self.model.model.blocks):
            width, merge = block.attn.head_dim, block.attn.o_proj.weight

            def mixed(_: Any, args: Any, layer: int = layer, width: int = width, merge: Any = merge) -> None:
                for head in range(args[0].shape[-1] // width):
                    part = slice(head * width, (head + 1) * width)
                    found[f"blocks.{layer}.attn.{head}"] = args[0][0, :, part] @ merge[:, part].T

            def neurons(_: Any, __: Any, output: torch.Tensor, layer: int = layer) -> None:
                found[f"blocks.{layer}.mlp"] = output[0]

            def stream(_: Any, args: Any, layer: int = layer) -> None:
                found[f"stream.{layer}"] = args[0]

            planted += [block.attn.o_proj.register_forward_pre_hook(mixed), block.mlp.register_forward_hook(neurons)]
            planted.append(block.register_forward_pre_hook(stream))
        with hooks(*planted):
            self.score(ids)
        return found

    def along(self, source: str, layer: int, index: int) -> float:
        """Return the corrupted run's score when one receiver sees what the sender wrote in the clean run."""
        change = self.clean[source] - self.corrupt[source]

        def add(_: Any, args: Any) -> Any:
            return (args[0] + change, *args[1:])

        if index == -2:
            planted = self.model.lm_head.register_forward_pre_hook(add)
        elif index == -1:
            planted = self.model.model.blocks[layer].mlp.register_forward_pre_hook(add)
        else:
            attention, seen = self.model.model.blocks[layer].attn, []
            with hooks(attention.o_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))):
                attention(self.corrupt[f"stream.{layer}"] + change)
            part = slice(index * attention.head_dim, (index + 1) * attention.head_dim)

            def one_head(_: Any, args: Any) -> Any:
                mixed = args[0].clone()
                mixed[..., part] = seen[0][..., part]
                return (mixed,)

            planted = attention.o_proj.register_forward_pre_hook(one_head)
        with hooks(planted):
            return self.score(self.pair["corrupt"])


@pytest.mark.parametrize("name", ["induction", "fact", "two-step", "majority", "redundant"])
@torch.no_grad()
def test_every_edge_carries_what_the_answer_says(name: str) -> None:
    program, known = truth.program(name), truth.answer(name)
    for pair in known["pairs"][:: len(known["pairs"]) // 2]:
        plain = Plain(program, pair)
        effects = {(source, target): effect for source, target, effect in pair["edges"]}
        start, count = plain.score(pair["corrupt"]), 0
        for source in [key for key in plain.clean if not key.startswith("stream")]:
            order = -1 if source == "embed" else 2 * int(source.split(".")[1]) + source.endswith("mlp")
            for when, target, layer, index in receivers(program):
                if when > order:
                    found = plain.along(source, layer, index) - start
                    assert found == pytest.approx(effects.get((source, target), 0.0), abs=2e-3), (source, target)
                    count += 1
        assert count >= len(effects) > 0
