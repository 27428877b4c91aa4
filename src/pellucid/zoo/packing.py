"""Training text as packed rows of token ids, the same for the same seed and chunk."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pellucid.zoo import tasks
from pellucid.zoo import tokenizer as tokenizers


@dataclass(frozen=True)
class Batch:
    """Hold token ids, targets' loss weights, document numbers and positions, each [row, position]."""

    ids: Tensor
    weights: Tensor
    documents: Tensor
    positions: Tensor

    def mask(self) -> Tensor:
        """Allow each token to see earlier tokens of its own document: [row, 1, query, key]."""
        same = self.documents[:, :, None] == self.documents[:, None, :]
        return (same & torch.ones(same.shape[-2:], dtype=torch.bool).tril())[:, None]


def _texts(tokenizer: PreTrainedTokenizerFast, seed: str, count: int) -> list[tuple[list[int], list[float]]]:
    """Write and tokenise documents; each is its token ids and the loss weight of predicting each of them.

    A long answer weighs more than a short one, but only as the square root of its length.
    """
    documents = tasks.training_documents(seed, count)
    found = []
    for document, encoding in zip(
        documents, tokenizer.backend_tokenizer.encode_batch([d.text for d in documents]), strict=True
    ):
        marks = bytearray(len(document.text) + 1)
        for start, stop in document.spans:
            marks[start:stop] = b"\1" * (stop - start)
        answers = [bool(stop > start and marks[stop - 1]) for start, stop in encoding.offsets]
        weight = max(sum(answers), 1) ** -0.5
        weights = [weight if answer else document.rest for answer in answers]
        weights[0] = 0.0
        found.append(([*encoding.ids, tokenizer.eos_token_id], [*weights, document.rest]))
    return found


def _random_repeats(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, count: int
) -> list[tuple[list[int], list[float]]]:
    """Write random tokens two to four times over; only the repetitions carry loss."""
    low, high = tokenizers.first_ordinary(tokenizer), len(tokenizer)
    found = []
    for _ in range(count):
        times = rng.choice((2, 2, 3, 4))
        length = rng.randint(3, 56 // times)
        once = [rng.randrange(low, high) for _ in range(length)]
        weights = [0.0] * (length + 2) + [0.5] * (length * (times - 1) - 1)
        found.append(([tokenizer.bos_token_id, *once * times], weights))
    return found


def repeats(tokenizer: PreTrainedTokenizerFast, seed: str, pool: int, shape: tuple[int, int] = (32, 48)) -> Batch:
    """Fill a batch of `shape` with random tokens, all different, over and over; only the repetitions carry loss.

    The tokens are the first `pool` of an order of the vocabulary that is always the same.
    """
    rows, width = shape
    ordinary = list(range(tokenizers.first_ordinary(tokenizer), len(tokenizer)))
    random.Random("pool").shuffle(ordinary)
    rng = random.Random(f"repeats {seed}")
    length = rng.randint(6, 16)
    times = width // length
    once = torch.tensor([rng.sample(ordinary[:pool], length) for _ in range(rows)])
    ids = torch.cat([torch.full((rows, 1), tokenizer.bos_token_id), once.repeat(1, times)], 1)
    weights = torch.zeros(ids.shape)
    weights[:, length + 2 :] = 1.0
    return Batch(ids, weights, torch.zeros_like(ids), torch.arange(ids.shape[1]).expand(ids.shape))


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: str, count: int, repeats: int, shape: tuple[int, int]
) -> Iterator[Batch]:
    """Pack `count` documents and `repeats` random sequences, shuffled, into batches of `shape` (rows, tokens).

    The last incomplete batch is dropped.
    """
    rows, width = shape
    rng = random.Random(f"pack {seed}")
    texts = _texts(tokenizer, seed, count) + _random_repeats(tokenizer, rng, repeats)
    rng.shuffle(texts)
    size = (len(texts), width)
    ids = torch.full(size, tokenizer.pad_token_id or 0)
    weights, documents, positions = torch.zeros(size), torch.full(size, -1), torch.zeros(size, dtype=torch.long)
    ends: list[int] = []
    open_rows: list[int] = []
    for number, (tokens, weight) in enumerate(texts):
        length = len(tokens)
        if length > width:
            continue
        row = next((index for index in open_rows if ends[index] + length <= width), None)
        if row is None:
            row = len(ends)
            ends.append(0)
            open_rows = [*open_rows[-15:], row]
        place = slice(ends[row], ends[row] + length)
        ids[row, place], weights[row, place] = torch.tensor(tokens), torch.tensor(weight)
        documents[row, place], positions[row, place] = number, torch.arange(length)
        ends[row] += length
    for start in range(0, len(ends) - rows + 1, rows):
        part = slice(start, start + rows)
        yield Batch(ids[part], weights[part], documents[part], positions[part])
