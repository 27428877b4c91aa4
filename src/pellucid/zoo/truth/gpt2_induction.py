"""The program of `induction`, inside an unmodified GPT-2 with its norms and idle MLPs."""

from __future__ import annotations

from dataclasses import replace

from pellucid.zoo.truth import induction
from pellucid.zoo.truth._program import Block, Neuron

# Busy neurons write where nobody reads; the others would write into the answer, but nothing ever switches them on.
IDLE = (
    *(Neuron("", ((f"tok:{word}", 1.0),), 0.0, (("idle-m", 1.0),)) for word in induction.WORDS[:3]),
    *(Neuron("", ((f"tok:{word}", 1.0),), -2.0, ((f"out:{word}", 1.0),)) for word in induction.WORDS[:3]),
)
BLOCKS = tuple(Block(block.heads, IDLE) for block in induction.PROGRAM.blocks)
PROGRAM = replace(induction.PROGRAM, name="gpt2-induction", gpt2=True, blocks=BLOCKS)
