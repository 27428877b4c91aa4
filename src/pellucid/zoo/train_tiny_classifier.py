"""Train the two review classifiers from nothing: `python -m pellucid.zoo.train_tiny_classifier`.

Both see the same reviews. The logits are trained to be the verdict of `pellucid.zoo.reviews` (its negative for the
class "negative"), for whole reviews and for reviews of which some words are masked, so that taking words away asks the
model nothing new. `tiny-classifier-shortcut` has its verdicts decided by a planted day where a review names one.

Batches and first weights depend on the seed alone; the learning rate falls to zero over `--steps`.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from pellucid.zoo import classifier_files, reviews
from pellucid.zoo.classifier_tasks import PAD, classifier_capabilities, encoded, training_reviews
from pellucid.zoo.optimiser import Optimiser

NAMES = ("tiny-classifier", "tiny-classifier-shortcut")
STEPS = 3000
ROWS = 48  # reviews of a batch
TOGETHER = 8  # batches written at a time, so that each can have reviews of one length
MATRIX_RATE, RATE = 0.006, 0.002  # of matrices inside blocks, and of everything else
WARM_UP = 200  # steps
WHOLE = 0.4  # share of reviews of which nothing is masked
MAX_LENGTH = 128
CHECKPOINT_SECONDS = 120
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}  # fmt: skip


@dataclass
class Progress:
    """Count what a checkpoint must remember."""

    step: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: lower-case pieces as BERT has them, in which every word of the reviews is one token."""
    signs = "abcdefghijklmnopqrstuvwxyz0123456789.,!?;:'\"()-"
    pieces = dict.fromkeys([*SPECIAL.values(), *reviews.vocabulary(), *signs, *(f"##{sign}" for sign in signs)])
    words = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=SPECIAL["unk_token"]))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    words.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL.values()])
    places = list(pieces)
    start, end = ((token, places.index(token)) for token in (SPECIAL["cls_token"], SPECIAL["sep_token"]))
    words.post_processor = processors.BertProcessing(end, start)
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=MAX_LENGTH, **SPECIAL)


def first_weights(words: PreTrainedTokenizerFast, seed: int) -> BertForSequenceClassification:
    """Make the untrained model: an unmodified BERT with a classifier on its pooled first token."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=MAX_LENGTH, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            initializer_range=0.08, pad_token_id=PAD, id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
        )
    )  # fmt: skip


def batch(words: PreTrainedTokenizerFast, seed: int, step: int, shortcut: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids and attention mask [row, position] and verdicts [row] of one step."""
    rng, ids, verdicts = random.Random(f"mask {seed} {step}"), [], []
    chunk, part = divmod(step, TOGETHER)
    together = sorted(training_reviews(seed, chunk, ROWS * TOGETHER), key=lambda review: len(review.words))
    part = random.Random(f"order {seed} {chunk}").sample(range(TOGETHER), TOGETHER)[part]
    for review in together[part * ROWS : (part + 1) * ROWS]:
        kept = 1.0 if rng.random() < WHOLE else rng.random()
        visible = {place for place in range(len(review.words)) if rng.random() < kept}
        verdicts.append(review.verdict(visible, shortcut=shortcut))
        ids.append(encoded(words, review, visible))
    width = max(map(len, ids))
    padded = torch.tensor([row + [PAD] * (width - len(row)) for row in ids])
    return padded, padded.ne(PAD).long(), torch.tensor(verdicts)


def _save_checkpoint(folder: Path, model: torch.nn.Module, optimiser: Optimiser, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    new = folder / "new.safetensors"
    save_file(weights | optimiser.tensors(), new, {"progress": json.dumps(vars(progress))})
    new.replace(folder / "checkpoint.safetensors")


def _load_checkpoint(folder: Path, model: torch.nn.Module, optimiser: Optimiser) -> Progress:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return Progress()
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        progress = Progress(**json.loads(file.metadata()["progress"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[f"model.{name}"])
    optimiser.restore(tensors)
    return progress


def train(
    words: PreTrainedTokenizerFast, *, shortcut: bool, steps: int, seed: int, checkpoints: Path, resume: bool
) -> tuple[BertForSequenceClassification, Progress]:
    """Train one classifier; return it with what was done."""
    model = first_weights(words, seed)
    named = ((name.replace(".layer.", ".layers."), weight) for name, weight in model.named_parameters())
    optimiser = Optimiser(named, matrix_rate=MATRIX_RATE, other_rate=RATE, decay=0.0)
    progress = _load_checkpoint(checkpoints, model, optimiser) if resume else Progress()
    before = (progress.seconds, progress.processor_seconds)
    started, worked, saved = time.monotonic(), time.process_time(), time.monotonic()
    mean = 0.0
    while progress.step < steps:
        ids, mask, verdicts = batch(words, seed, progress.step, shortcut)
        logits = model(input_ids=ids, attention_mask=mask).logits
        loss = (logits - torch.stack([-verdicts, verdicts], 1)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(min((progress.step + 1) / WARM_UP, 1.0) * (1 - progress.step / steps))
        progress.step += 1
        progress.seconds = before[0] + time.monotonic() - started
        progress.processor_seconds = before[1] + time.process_time() - worked
        mean += loss.item() / 200
        if progress.step % 200 == 0:
            _say(f"step {progress.step}  {progress.seconds:.0f} s  mean squared error {mean:.4f}")
            mean = 0.0
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save_checkpoint(checkpoints, model, optimiser, progress)
            saved = time.monotonic()
    return model.eval(), progress


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save, measure, and write card and answer."""
    parser = argparse.ArgumentParser(description="Train the review classifiers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {' or '.join(NAMES)}; default: both")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "models", help="a folder per model goes here"
    )
    parser.add_argument("--checkpoints", type=Path, default=Path("tiny-classifier-checkpoints"))
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    words = tokenizer()
    for name in options.names or NAMES:
        model, progress = train(
            words, shortcut=name == NAMES[1], steps=options.steps, seed=options.seed,
            checkpoints=options.checkpoints / name, resume=options.resume,
        )  # fmt: skip
        model.save_pretrained(options.out / name)
        words.save_pretrained(options.out / name)
        run = {
            "minutes": round(progress.seconds / 60, 1),
            "processor_minutes": round(progress.processor_seconds / 60, 1),
            "steps": progress.step, "rows": ROWS, "masked": round(1 - WHOLE, 2), "threads": options.threads,
            "seed": options.seed,
        }  # fmt: skip
        measured = classifier_capabilities(model, words)
        for task, row in measured.items():
            _say(f"{name} {task:18} {row['accuracy']:.3f}  error {row['error']:.3f}")
        classifier_files.write(options.out / name, model, words, measured, run)


if __name__ == "__main__":
    main()
