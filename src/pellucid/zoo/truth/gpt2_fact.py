"""The program of `fact`, inside an unmodified GPT-2 with its norms."""

from __future__ import annotations

from dataclasses import replace

from pellucid.zoo.truth import fact

PROGRAM = replace(fact.PROGRAM, name="gpt2-fact", gpt2=True)
