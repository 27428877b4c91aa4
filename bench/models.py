"""Random models, a tokenizer made in code, and prompts drawn from a seed. Nothing is downloaded."""

from __future__ import annotations

import functools
import itertools
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

SHAPES = ("gpt2", "llama")
EVERY_SHAPE = (*SHAPES, "bert")  # a classifier, for methods published for encoders
VOCABULARY = {"gpt2": 50257, "llama": 32000, "bert": 30522}
REPLACEMENT = 0  # the token that stands for a removed one; never drawn
LEAST_TOKEN = 10
NOISE = 0.06  # the standard deviation of causal tracing's noise: three times that of the embeddings


@dataclass(frozen=True)
class Shape:
    """A model's architecture and size. Heads are as wide as `width / heads`, the feed-forward layer 4 x width."""

    kind: str
    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 0

    @property
    def words(self) -> int:
        """Return the size of the vocabulary."""
        return self.vocabulary or VOCABULARY[self.kind]

    @property
    def units_per_token_layer(self) -> int:
        """Return a block's weights in units of width x width: attention 4, feed-forward 8 (12 with a gate)."""
        return 16 if self.kind == "llama" else 12

    def thin(self) -> Shape:
        """Return the same model 24 wide: it does the same token-layers and logit rows, in a hundredth of the time."""
        return replace(self, width=2 * self.heads, vocabulary=499)


def build(shape: Shape, device: str = "cpu", attention: str = "sdpa") -> Any:
    """Return a random model of this shape in float32, its weights always the same."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    common: dict[str, Any] = {"vocab_size": shape.words, "attn_implementation": attention}
    common |= {"bos_token_id": shape.words - 1, "eos_token_id": shape.words - 1}
    torch.manual_seed(0)
    if shape.kind == "gpt2":
        config: Any = GPT2Config(n_layer=shape.layers, n_embd=shape.width, n_head=shape.heads, **common)
        return GPT2LMHeadModel(config).eval().to(device)
    if shape.kind == "bert":
        del common["bos_token_id"], common["eos_token_id"]
        # Behind so many norms, attention of smaller weights moves a class by less than float32 resolves, and larger
        # ones saturate it.
        config = BertConfig(
            num_hidden_layers=shape.layers, hidden_size=shape.width, num_attention_heads=shape.heads,
            intermediate_size=4 * shape.width, initializer_range=1.2 / shape.width**0.5, **common,
        )  # fmt: skip
        classifier = BertForSequenceClassification(config)
        with torch.no_grad():
            for name, weight in classifier.named_parameters():
                if name.endswith("bias"):
                    weight.normal_(std=0.1)  # new ones are zero, and sharing them out is part of a job
        return classifier.eval().to(device)
    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=2048,
        **common,
    )
    return LlamaForCausalLM(config).eval().to(device)


def tokenizer(words: int) -> Any:
    """Return a tokenizer whose words are `w0`, `w1`, ...: text and ids stand for each other exactly."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {f"w{i}": i for i in range(words - 1)} | {"<eos>": words - 1}
    core = Tokenizer(models.WordLevel(table, unk_token="<eos>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<eos>")
    made = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    made.save_pretrained(_folder().name)
    return PreTrainedTokenizerFast.from_pretrained(_folder().name)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that lasts as long as the process: TransformerLens reads a tokenizer's folder again."""
    return tempfile.TemporaryDirectory()


def text(ids: tuple[int, ...]) -> str:
    """Return ids as text for that tokenizer."""
    return " ".join(f"w{i}" for i in ids)


@dataclass(frozen=True)
class Sizes:
    """How large a job is; what a job does not have stays 0."""

    tokens: int
    continuation: int = 0
    steps: int = 0
    units: int = 0
    permutations: int = 0
    samples: int = 0
    question: int = 0
    noise: int = 0
    subject: tuple[int, int] = (0, 0)
    window: int = 1
    batch: int = 1

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Return the units as token ranges, as equal as they can be; the question at the end is none of them."""
        edges = np.linspace(0, self.tokens - self.question, self.units + 1).round().astype(int).tolist()
        return tuple(itertools.pairwise(edges))


@dataclass(frozen=True, eq=False)
class Case:
    """One prompt and all that is drawn with it: the data of one run."""

    sizes: Sizes
    ids: tuple[int, ...]
    other: tuple[int, ...]
    continuation: tuple[int, ...]
    target: int
    contrast: int
    noise: torch.Tensor
    seed: int


def draw(sizes: Sizes, shape: Shape, seed: int) -> Case:
    """Draw a case; different seeds share nothing."""
    rng = np.random.default_rng(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(LEAST_TOKEN, shape.words - 1, count).tolist())

    first, last = sizes.subject
    drawn = [
        torch.randn(last - first, shape.width, generator=torch.Generator().manual_seed(seed + i))
        for i in range(sizes.noise)
    ]
    noise = NOISE * (torch.stack(drawn) if drawn else torch.zeros(0, last - first, shape.width))
    count = sizes.tokens * sizes.batch
    target, contrast = ids(2)
    return Case(sizes, ids(count), ids(count), ids(sizes.continuation), target, contrast, noise, seed)
