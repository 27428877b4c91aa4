"""Tiny random models with tokenizers, and what must be the same after every error."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import pellucid
from pellucid import PellucidError, Subject
from tests.state import changed, model_state
from tests.tiny_decoders import GPT, LLAMA
from tests.tiny_encoders import BERT
from tests.tokenizers_for_tests import byte_level, wordpiece

PROMPT = "Hello world the Paris"


@cache
def decoder_tokenizer() -> Any:
    return byte_level()


@cache
def encoder_tokenizer() -> Any:
    return wordpiece()


def _built(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def decoder(**options: Any) -> Any:
    """Return a tiny Llama for the byte-level tokenizer."""
    settings: dict[str, Any] = LLAMA | {"vocab_size": len(decoder_tokenizer())} | options
    return _built(lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)))


def gpt2() -> Any:
    """Return a tiny GPT-2, whose positions end after 64 tokens."""
    settings: dict[str, Any] = GPT | {"vocab_size": len(decoder_tokenizer())}
    return _built(lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)))


def encoder(kind: str) -> Any:
    """Return a tiny BERT with the head `BertFor{kind}`, or without one."""
    settings: dict[str, Any] = BERT | {
        "vocab_size": len(encoder_tokenizer()),
        "id2label": {0: "bad", 1: "good", 2: "mixed"},
    }
    name = f"BertFor{kind}" if kind else "BertModel"
    return _built(lambda: getattr(transformers, name)(transformers.BertConfig(**settings)))


@cache
def language_model() -> Subject:
    """Return the decoder that most tests share; they leave it unchanged, which is tested."""
    return pellucid.load(decoder(), decoder_tokenizer())


@cache
def position_limited() -> Subject:
    return pellucid.load(gpt2(), decoder_tokenizer())


@cache
def classifier() -> Subject:
    return pellucid.load(encoder("SequenceClassification"), encoder_tokenizer())


@cache
def masked() -> Subject:
    return pellucid.load(encoder("MaskedLM"), encoder_tokenizer())


@cache
def headless() -> Subject:
    return pellucid.load(encoder(""), encoder_tokenizer())


def saved(folder: Path, **options: Any) -> Path:
    """Save the decoder and its tokenizer in a folder that `load` and the command line take."""
    decoder(**options).save_pretrained(folder)
    decoder_tokenizer().save_pretrained(folder)
    return folder


def everything(model: Any) -> dict[str, Any]:
    """Describe a model, its configuration and the random generators but Python's own, from which type checks draw."""
    return model_state(model) | {
        "config": copy.deepcopy(model.config.to_dict()),
        "torch random": torch.random.get_rng_state().tolist(),
        "numpy random": str(np.random.get_state()),  # noqa: NPY002 - third parties use it
        "gradient mode": torch.is_grad_enabled(),
    }


@contextmanager
def left_alone(model: Any) -> Iterator[None]:
    """Fail when the block leaves anything of the model, its configuration or the random generators changed."""
    before = everything(model)
    yield
    different = changed(before, everything(model))
    assert not different, f"changed: {', '.join(different)}"


def refused(
    call: Callable[[], Any], kind: type[PellucidError], *words: str, subject: Subject | None = None
) -> PellucidError:
    """Check that a call raises one clear sentence with all `words` and leaves the subject alone; return the error."""
    guard = nullcontext() if subject is None or subject.model is None else left_alone(subject.model)
    with guard, pytest.raises(kind) as caught:
        call()
    said = str(caught.value)
    lacking = [word for word in words if word.lower() not in said.lower()]
    assert not lacking, f"{said!r} lacks {lacking}"
    assert said.endswith((".", "?")), said
    assert re.search(r"[.!?]\s+[A-Z]|\n", said) is None, f"more than one sentence: {said!r}"
    return caught.value
