"""Text from a local model held by a Subject."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from pellucid.core.errors import CapabilityError, InputError, ResourceError
from pellucid.generators.decoding import Decoder, Row, continue_rows
from pellucid.generators.interface import Reply, Request, choice_reply, collect, digest
from pellucid.generators.scripted import cut_at
from pellucid.generators.seq2seq import EncoderDecoder

# Rows are sorted by this many first tokens, then by length: neighbours share a beginning and need little padding.
GROUPED_BY = 8

Ids = tuple[int, ...]


class LocalGenerator:
    """Generate with the model of a Subject: in batches, equal to one by one up to rounding.

    Greedy unless a request has a temperature; then every sample draws from its own random numbers, seeded by the
    request (prompt, temperature, top_p, seed, number of the sample), so its companions in a batch do not matter. The
    longest common prefix of a batch is computed once (`share_prefix`). A text prompt is continued as it stands, a chat
    goes through the tokenizer's template. Generation ends at any end token of the model's generation settings,
    configuration or tokenizer, at a stop string, after `max_tokens` ("length"), or when the model's positions run out.

    A choice is scored exactly, by teacher forcing: the sum of the log-probabilities of all its tokens after the prompt.
    It is tokenised on its own, without special tokens, so the prompt's tokens stay as they are. Several spellings of
    one choice are added as probabilities; equal token sequences, and those that begin with another spelling of the
    same choice, count once. Batches that do not fit in memory are halved.

    Args:
        subject: A Subject with a language model that can generate and a tokenizer, without edits.
        batch_size: Most rows at once.
        share_prefix: Compute common prefixes once.

    Raises:
        CapabilityError: If the subject cannot generate text.
        InputError: If a prompt has no tokens or leaves no room to generate.
        ResourceError: If not even one row fits in memory.
    """

    def __init__(self, subject: Any, *, batch_size: int = 16, share_prefix: bool = True) -> None:
        """Check the subject and read its end tokens."""
        if "generate" not in subject.capabilities or subject.model is None or subject.tokenizer is None:
            raise CapabilityError(
                f"LocalGenerator needs a language model with a tokenizer, but {subject.name!r} cannot generate text; "
                "load a causal or encoder-decoder model, or use ServerGenerator."
            )
        if getattr(subject, "edits", ()):
            raise CapabilityError(
                f"{subject.name!r} has edits, which LocalGenerator would leave out; give it the plain subject."
            )
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, but is {batch_size}.")
        self.subject, self.batch_size = subject, batch_size
        self._ends = end_tokens(subject.model, subject.tokenizer)
        self._limit = subject.max_length if subject.kind == "decoder" else None
        pad = subject.tokenizer.pad_token_id
        pad = next(iter(self._ends), 0) if pad is None else pad
        if subject.kind == "encoder-decoder":
            self._decoder: Decoder | EncoderDecoder = EncoderDecoder(subject.model, pad)
        else:
            self._decoder = Decoder(subject.model, pad, share_prefix)
        self._hash: tuple[Any, str] = (None, "")

    @property
    def name(self) -> str:
        """Return the subject's name."""
        return self.subject.name

    @property
    def identity(self) -> Mapping[str, object]:
        """Return what tells this generator apart in a cache: name, revision and a hash of the weights."""
        state = tuple((value.data_ptr(), value._version) for value in self.subject.model.state_dict().values())
        if self._hash[0] != state:
            self._hash = (state, hash_weights(self.subject.model))
        revision = getattr(self.subject, "revision", None)
        return {"kind": "local", "name": self.name, "revision": revision, "weights": self._hash[1]}

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer every request, in order."""
        return collect(self.stream(requests), len(requests))

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Yield `(index, reply)` whenever the last row of a request is done."""
        prompts = [self._encode(request) for request in requests]
        yield from self._stream_texts(requests, prompts)
        yield from self._stream_choices(requests, prompts)

    def _encode(self, request: Request) -> Ids:
        """Return the prompt's token ids."""
        ids = tuple(int(t) for t in self.subject.encode(_as_given(request)).ids)
        if not ids:
            raise InputError(f"The prompt {request.question[:40]!r} has no tokens; give a text the tokenizer knows.")
        self._check_room(request, len(ids) + 1)
        return ids

    def _check_room(self, request: Request, needed: int) -> None:
        """Refuse what does not fit into the model's positions."""
        if self._limit is not None and needed > self._limit:
            raise InputError(
                f"The prompt {request.question[:40]!r} needs {needed} positions with its answer, but {self.name} has "
                f"{self._limit}; shorten it."
            )

    def _stream_texts(self, requests: Sequence[Request], prompts: Sequence[Ids]) -> Iterator[tuple[int, Reply]]:
        """Generate for the requests without choices."""
        rows: dict[int, list[Row]] = {}
        for index, (request, ids) in enumerate(zip(requests, prompts, strict=True)):
            if not request.choices:
                # Greedy samples are all the same, so one row stands for them.
                samples = request.n if request.temperature > 0 else 1
                rows[index] = [self._row(request, ids, sample) for sample in range(samples)]
        everything = [(index, row) for index, own in rows.items() for row in own]
        for batch in self._batches(everything, lambda item: item[1].ids):
            self._run(lambda part: continue_rows(self._decoder, [row for _, row in part]), batch)
            for index in dict.fromkeys(owner for owner, _ in batch):
                if all(row.reason for row in rows[index]):
                    yield index, self._text_reply(requests[index], rows[index])

    def _row(self, request: Request, ids: Ids, sample: int) -> Row:
        """Return the row of one sample, with its own random numbers and its own end."""
        room = request.max_tokens if self._limit is None else min(request.max_tokens, self._limit - len(ids))
        asked = request.as_json()
        key = [asked[name] for name in ("prompt", "temperature", "top_p", "seed")]
        seed = int(digest([*key, sample])[:32], 16) if request.temperature > 0 else None

        def finished(drawn: list[int]) -> str:
            if drawn[-1] in self._ends:
                return "stop"
            text = self._text(ids, drawn) if request.stop else ""
            return "stop" if any(ending in text for ending in request.stop) else ""

        return Row(ids, room, finished, request.temperature, request.top_p, seed)

    def _text_reply(self, request: Request, rows: Sequence[Row]) -> Reply:
        """Turn the rows of one request into its reply."""
        times = request.n // len(rows)
        texts = tuple(cut_at(self._text(row.ids, row.drawn), request.stop) for row in rows) * times
        reasons = tuple(row.reason for row in rows) * times
        return Reply(texts, None, reasons, len(rows[0].ids), sum(len(row.drawn) for row in rows))

    def _text(self, ids: Sequence[int], drawn: Sequence[int]) -> str:
        """Return the text of the drawn tokens as it continues the prompt."""
        drawn = drawn[:-1] if drawn and drawn[-1] in self._ends else drawn
        if self.subject.kind == "encoder-decoder":
            return self._decode(drawn)
        # Some tokenizers drop a leading space; a few tokens of the prompt before it bring it back.
        before = ids[-GROUPED_BY:]
        head, whole = self._decode(before), self._decode([*before, *drawn])
        return whole[len(head) :] if whole.startswith(head) else self._decode(drawn)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.subject.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _stream_choices(self, requests: Sequence[Request], prompts: Sequence[Ids]) -> Iterator[tuple[int, Reply]]:
        """Score the requests with choices."""
        endings: dict[tuple[str, ...], list[Ids]] = {}
        scores: dict[tuple[int, Ids], float] = {}
        for index, request in enumerate(requests):
            for group in request.spellings():
                if group not in endings:
                    endings[group] = self._endings(group)
                self._check_room(request, len(prompts[index]) + max(len(ending) for ending in endings[group]))
                scores.update({(index, ending): math.nan for ending in endings[group]})
        left = Counter(index for index, _ in scores)

        def score(part: Sequence[tuple[int, Ids]]) -> None:
            sums = self._decoder.score([prompts[index] for index, _ in part], [ending for _, ending in part])
            scores.update(zip(part, sums, strict=True))

        for batch in self._batches(list(scores), lambda item: prompts[item[0]] + item[1]):
            self._run(score, batch)
            left.subtract(index for index, _ in batch)
            for index in dict.fromkeys(owner for owner, _ in batch if left[owner] == 0):
                groups = [endings[group] for group in requests[index].spellings()]
                sums = [_log_sum_exp([scores[index, ending] for ending in group]) for group in groups]
                used = sum(len(ending) for group in groups for ending in group)
                counts = {"prompt_tokens": len(prompts[index]), "completion_tokens": used}
                yield index, choice_reply(requests[index], sums, "log-probs", **counts)

    def _endings(self, group: Sequence[str]) -> list[Ids]:
        """Return the different token sequences of a choice's spellings, none of which begins with another."""
        found = [tuple(self.subject.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in group]
        for text, ids in zip(group, found, strict=True):
            if not ids:
                raise InputError(f"The choice {text!r} has no tokens; give a text that the tokenizer knows.")
        return [ids for ids in dict.fromkeys(found) if not any(ids[: len(o)] == o for o in found if len(o) < len(ids))]

    def _batches(self, items: Sequence[Any], ids_of: Callable[[Any], Ids]) -> Iterator[list[Any]]:
        """Yield batches whose rows begin alike, where they do, and are of similar length."""
        ids = [ids_of(item) for item in items]
        order = sorted(range(len(items)), key=lambda at: (ids[at][:GROUPED_BY], len(ids[at]), ids[at]))
        for start in range(0, len(order), self.batch_size):
            yield [items[at] for at in order[start : start + self.batch_size]]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the subject's lock, without gradients and with dropout off; every module gets its own mode back."""
        with getattr(self.subject, "lock", None) or contextlib.nullcontext(), torch.no_grad():
            training = [module for module in self.subject.model.modules() if module.training]
            try:
                for module in training:
                    module.training = False
                yield
            finally:
                for module in training:
                    module.training = True

    def _run(self, work: Callable[[Sequence[Any]], None], batch: Sequence[Any]) -> None:
        """Run a batch under the subject's lock, in halves where memory runs out."""
        try:
            with self._locked():
                work(batch)
            return
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ResourceError(
                    f"Memory ran out while {self.name} answered a single prompt; shorten it or use a smaller model."
                ) from error
        half = len(batch) // 2
        self._run(work, batch[:half])
        self._run(work, batch[half:])


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every token id that ends a text, for the generation settings, the configuration or the tokenizer."""
    ends: set[int] = set()
    for source in (getattr(model, "generation_config", None), getattr(model, "config", None), tokenizer):
        given = getattr(source, "eos_token_id", None)
        ends |= {given} if isinstance(given, int) else set(given or ())
    return frozenset(ends)


def hash_weights(model: Any) -> str:
    """Return the sha256 over names, shapes, types and bytes of all weights that are in memory."""
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.device.type == "meta":
            continue
        value = tensor.detach().contiguous().cpu()
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _as_given(request: Request) -> str | list[dict[str, str]]:
    return request.prompt if isinstance(request.prompt, str) else request.messages


def _log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values)) if top > -math.inf else top
