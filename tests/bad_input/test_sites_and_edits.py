"""Sites and edits that cannot be: refused in one sentence, with the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid import Edit
from pellucid.core.errors import EditError, SiteError
from pellucid.engine.capture import capture
from tests.bad_input.small import PROMPT, decoder, decoder_tokenizer, language_model, refused
from tests.tiny import TINY

METHODS = ("gradient_x_input", "occlusion")


def attribute(prompt: Any, subject: Any, method: str = "gradient_x_input") -> Any:
    return pellucid.run(method, subject, prompt)


def patch(subject: Any, site: str) -> Any:
    return pellucid.run("activation_patching", subject, [1, 5], corrupt=[1, 6], target=7, site=site)


SITES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no resid_mid in parallel blocks": ("gptj", "blocks.0.resid_mid", ("resid_mid", "resid_pre")),
    "no gate": ("gpt2", "blocks.0.mlp.gate", ("mlp.gate", "mlp.up")),
    "no second stack": ("llama", "encoder.blocks.0.resid_pre", ("encoder.blocks.0", "blocks.N.resid_pre")),
    "layer out of range": ("llama", "blocks.2.resid_pre", ("blocks.2", "0 to 1")),
    "layer of a pattern out of range": ("llama", "blocks.2.attn.pattern", ("blocks.2", "0 to 1")),
    "misspelled": ("llama", "blocks.0.resid_prr", ("resid_prr", "did you mean", "blocks.0.resid_pre")),
    "rotation without an interface": ("gptj", "blocks.0.attn.q_rot", ("attn.q_rot", "attn.q")),
}


@pytest.mark.parametrize("name", SITES)
def test_a_site_that_the_model_lacks(name: str) -> None:
    architecture, site, words = SITES[name]
    subject = pellucid.load(TINY[architecture]())
    refused(lambda: capture(subject, [1, 2], [site]), SiteError, *words, subject=subject)
    refused(lambda: attribute([1, 2], subject.with_(Edit(site, "zero"))), SiteError, *words, subject=subject)
    part = site.split(".", 2)[2] if "out of range" not in name and "stack" not in name else site
    refused(lambda: patch(subject, part), SiteError, words[0].split(".")[0], subject=subject)


def wrong_shape(value: torch.Tensor, context: Any) -> torch.Tensor:
    return value[..., :1]


def no_tensor(value: torch.Tensor, context: Any) -> Any:
    return None


def divides(value: torch.Tensor, context: Any) -> torch.Tensor:
    return value / (1 // 0)


EDITS: dict[str, tuple[Callable[[], Edit], tuple[str, ...]]] = {
    "position that the prompt lacks": (
        lambda: Edit("blocks.0.resid_post", "zero", where={"position": 100}),
        ("never fired", "100"),
    ),
    "head out of range": (lambda: Edit("blocks.0.attn.z", "zero", where={"head": 4}), ("head 4", "0 to 3")),
    "axis that the site lacks": (lambda: Edit("blocks.0.resid_post", "zero", where={"head": 0}), ("head", "position")),
    "no value": (lambda: Edit("blocks.0.resid_post", "set"), ("set", "value")),
    "value of another shape": (lambda: Edit("blocks.0.resid_post", "set", torch.zeros(5)), ("shape", "5")),
    "unknown name": (lambda: Edit("blocks.0.resid_post", "zerro"), ("zerro", "did you mean 'zero'")),
    "unknown phase": (lambda: Edit("blocks.0.resid_post", "zero", phase="later"), ("later", "prompt")),
    "function of another shape": (
        lambda: Edit("blocks.0.resid_post", wrong_shape),
        ("wrong_shape", "shape", "same shape"),
    ),
    "function that returns nothing": (lambda: Edit("blocks.0.resid_post", no_tensor), ("no_tensor", "NoneType")),
    "function that raises": (lambda: Edit("blocks.0.resid_post", divides), ("divides", "ZeroDivisionError")),
    "function that raises in attention": (
        lambda: Edit("blocks.0.attn.pattern", divides),
        ("divides", "ZeroDivisionError"),
    ),
}


@cache
def unedited() -> np.ndarray:
    """Return the scores of a model that never met an edit."""
    return attribute(PROMPT, pellucid.load(decoder(), decoder_tokenizer())).scores


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("method", METHODS)
def test_an_edit_that_cannot_act(name: str, method: str) -> None:
    make, words = EDITS[name]
    subject = language_model()
    refused(lambda: attribute(PROMPT, subject.with_(make()), method), EditError, *words, subject=subject)
    np.testing.assert_array_equal(attribute(PROMPT, subject).scores, unedited())


def test_the_error_of_an_edit_is_visible() -> None:
    edited = language_model().with_(Edit("blocks.0.resid_post", divides))
    error = refused(lambda: attribute(PROMPT, edited), EditError, "integer", subject=edited)
    assert isinstance(error.__cause__, ZeroDivisionError)
