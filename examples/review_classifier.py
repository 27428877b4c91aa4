"""Train a small review classifier in under a minute, then ask which words of a review made its judgement.

It learns from SST-2 where the variable PELLUCID_DATA names a folder with `sst2/train.csv`, else from made-up reviews.

    python examples/review_classifier.py [FOLDER]
"""

import csv
import os
import random
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import pellucid

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = {1: "wonderful great moving funny clever lovely".split(), 0: "dull awful boring flat clumsy silly".split()}


def made_up(rng: random.Random) -> tuple[int, str]:
    """Write one review; "not" turns the judgement round."""
    label, word = rng.choice([(label, word) for label in WORDS for word in WORDS[label]])
    turned = rng.random() < 0.4
    thing, other = rng.sample(["film", "story", "cast", "music", "ending", "first half"], 2)
    start = rng.choice(["", "I watched it twice: ", f"Never mind the {other}, ", "Well, "])
    return label ^ turned, f"{start}the {thing} is {'not ' if turned else ''}{word}."


def reviews(name: str, count: int) -> list[tuple[int, str]]:
    file = Path(os.environ.get("PELLUCID_DATA", "")) / "sst2" / f"{name}.csv"
    if "PELLUCID_DATA" not in os.environ or not file.exists():
        rng = random.Random(name)
        return [made_up(rng) for _ in range(count)]
    with file.open(encoding="utf-8", newline="") as lines:
        return [(int(row["label"]), row["sentence"]) for row in csv.DictReader(lines)]


def tokenizer_for(texts: list[str]) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    raw.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=4000, special_tokens=SPECIAL, show_progress=False))
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


def train(model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, data: list[tuple[int, str]], epochs: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in torch.randperm(len(data)).split(64):
            labels, texts = zip(*(data[i] for i in batch), strict=True)
            given = tokenizer(list(texts), padding=True, return_tensors="pt")
            model(**given, labels=torch.tensor(labels)).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
