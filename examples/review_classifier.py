"""Train a small review classifier in under a minute, then ask which words of a review made its judgement.

It learns from SST-2 where the variable PELLUCID_DATA names a folder with `sst2/train.csv`, else from made-up reviews.

    python examples/review_classifier.py [FOLDER]
"""

import os
import random
import sys
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

import pellucid

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROLES = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
WORDS = [["dull", "awful", "boring", "flat", "silly"], ["great", "moving", "funny", "clever", "lovely"]]


def reviews(part: str, count: int) -> pd.DataFrame:
    """Return sentences with their label; in the made-up ones, "not" turns the judgement round."""
    file = Path(os.environ.get("PELLUCID_DATA", ".")) / "sst2" / f"{part}.csv"
    if file.exists():
        return pd.read_csv(file)
    rng, rows = random.Random(part), []
    for _ in range(count):
        label, turned, thing = rng.randrange(2), rng.random() < 0.4, rng.choice(["film", "story", "cast", "music"])
        start = rng.choice(["", "I saw it twice: ", "Whatever they say of the plot, ", "Well, "])
        rows.append((label ^ turned, f"{start}the {thing} is {'not ' if turned else ''}{rng.choice(WORDS[label])}."))
    return pd.DataFrame(rows, columns=["label", "sentence"])


out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
torch.manual_seed(0)
train, test = reviews("train", 3000), reviews("test", 300)

words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
words.train_from_iterator(
    train.sentence, trainers.WordPieceTrainer(vocab_size=6000, special_tokens=SPECIAL, show_progress=False)
)
words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **dict(zip(ROLES, SPECIAL, strict=True)))

size = {"vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
config = BertConfig(**size, intermediate_size=128, id2label={0: "negative", 1: "positive"})
model = BertForSequenceClassification(config)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
for _ in range(6):
    for rows in torch.randperm(len(train)).split(64):
        batch = train.iloc[rows.numpy()]
        given = tokenizer(list(batch.sentence), padding=True, return_tensors="pt")
        # Some words are masked, so that a review from which an explainer removes words is nothing new to the model.
        given.input_ids[torch.rand(given.input_ids.shape) < 0.3 * torch.rand(len(rows), 1)] = tokenizer.mask_token_id
        model(**given, labels=torch.tensor(list(batch.label))).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
model.eval()
with torch.no_grad():
    guesses = model(**tokenizer(list(test.sentence), padding=True, return_tensors="pt")).logits.argmax(-1)
print(f"Accuracy on {len(test)} reviews it has not seen: {(guesses.numpy() == test.label).mean():.1%}")

subject = pellucid.load(model, tokenizer)
explanation = pellucid.explain(subject, test.sentence[0], unit="word")
explanation.show()
explanation.html(out / "review.html")
print(f"The page: {out / 'review.html'}")
