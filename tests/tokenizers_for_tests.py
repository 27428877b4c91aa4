"""Tiny tokenizers, one of each kind that matters, built in code: no file, no network, no training.

The vocabularies hold a few English words as single tokens, so that tests can state exact ids and spans.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

WORDS = ("Hello", "world", "Paris", "London", "user", "assistant", "system", "Answer", "thing", "the", "is", "user")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% elif m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
STRIPS_THINKING = (
    "{% for m in messages %}{% set content = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in content %}"
    "{% if loop.last %}{% set content = '<think>\n' + content.split('</think>')[0].split('<think>')[-1].strip('\n')"
    " + '\n</think>\n\n' + content.split('</think>')[-1].lstrip('\n') %}"
    "{% else %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SEVERAL_ENDS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{{ '<|im_end|>' + eos_token + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REPEATS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '\nAgain: ' + m['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SKIPS_EMPTY_SYSTEM = (
    "{% for m in messages %}{% if m['content'] or m['role'] != 'system' %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
UPPERS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] | upper | replace('A', '4')) + "
    "'<|im_end|>\n' }}{% endfor %}"
)


def merges_for(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return left-to-right merges that make one token of every word (given in vocabulary letters)."""
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(1, len(word)):
            pair = (word[:end], word[end])
            if pair not in merges:
                merges.append(pair)
    return merges


def vocabulary(start: list[str], merges: list[tuple[str, str]]) -> dict[str, int]:
    """Number the starting symbols and then every merged one."""
    symbols = list(dict.fromkeys(start + [a + b for a, b in merges]))
    return {symbol: number for number, symbol in enumerate(symbols)}


def byte_level(template: str | None = CHATML, *, bos: bool = False, trim: bool = False) -> PreTrainedTokenizerFast:
    """GPT-2 style byte-level BPE; `bos` adds <s> in front of plain texts, `trim` leaves spaces out of the offsets."""
    words = tuple(w for word in WORDS for w in ("Ġ" + word, word))
    merges = [*merges_for(words), ("Ċ", "Ċ"), (".", "Ċ")]
    vocab = vocabulary(sorted(pre_tokenizers.ByteLevel.alphabet()), merges)
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    start = backend.token_to_id("<s>")
    parts: list[Any] = [processors.ByteLevel(trim_offsets=trim)]
    if bos:
        parts.append(processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", start)]))
    backend.post_processor = processors.Sequence(parts)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    fast.chat_template = template
    return fast


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT style lowercasing WordPiece with [CLS] and [SEP]."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?'()-")
    words = [
        "hello",
        "world",
        "paris",
        "is",
        "the",
        "a",
        "play",
        "##ing",
        "##ed",
        "un",
        "##known",
        "movie",
        "good",
        ".",
    ]
    start = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + x for x in letters] + words
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(start))}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _byte_pieces() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def llama_style(template: str | None = INST) -> PreTrainedTokenizerFast:
    """Llama-2 style BPE: ▁ for spaces, one put in front of the text, byte fallback, <s> in front."""
    letters = [chr(c) for c in range(33, 127)] + ["▁"]
    words = tuple(w for word in WORDS for w in ("▁" + word, word))
    merges = [*merges_for(words), ("▁", "["), ("]", "▁")]
    vocab = vocabulary(["<unk>", "<s>", "</s>", *_byte_pieces(), *letters], merges)
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", vocab["<s>"])])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


def unigram(*, normalised: bool = False) -> PreTrainedTokenizerFast:
    """T5 style Unigram with a metaspace in front of every word, byte fallback, and </s> at the end.

    With `normalised` there is a compatibility normaliser and no byte fallback: unknown characters become <unk>.
    """
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((b, -20.0) for b in _byte_pieces()), ("▁", -4.0)]
    pieces += [(chr(c), -8.0) for c in range(33, 127)]
    pieces += [(p, -3.0) for word in dict.fromkeys(WORDS) for p in ("▁" + word, word)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=not normalised))
    if normalised:
        backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


class SlowBytes(PreTrainedTokenizer):
    """Pure-Python tokenizer without offsets: one token per UTF-8 byte, </s> at the end."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012  (the parent class declares a list)

    def __init__(self, **settings: Any) -> None:
        """Reserve three ids for <pad>, </s> and <unk>."""
        names = ("<pad>", "</s>", "<unk>")
        self._added_tokens_decoder: Any = {number: AddedToken(name) for number, name in enumerate(names)}
        super().__init__(pad_token=names[0], eos_token=names[1], unk_token=names[2], **settings)

    @property
    def vocab_size(self) -> int:
        """Return the number of byte values."""
        return 256

    def get_vocab(self) -> dict[str, int]:
        """Return the vocabulary."""
        return {chr(byte): byte + 3 for byte in range(256)} | dict(self.added_tokens_encoder)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return [chr(byte) for byte in text.encode()]

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token) + 3 if len(token) == 1 else 2

    def _convert_id_to_token(self, index: int) -> str:
        return bytes([index - 3]).decode("latin-1")

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join bytes and special tokens into text."""
        raw = b"".join(t.encode() if t in self.added_tokens_encoder else bytes([ord(t)]) for t in tokens)
        return raw.decode(errors="replace")

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Append </s> to each text."""
        return [*token_ids_0, 1] + ([] if token_ids_1 is None else [*token_ids_1, 1])

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Mark the end tokens."""
        if already_has_special_tokens:
            return [int(i < 3) for i in token_ids_0]
        return [0] * len(token_ids_0) + [1] + ([] if token_ids_1 is None else [0] * len(token_ids_1) + [1])


class SlowWords(PreTrainedTokenizer):
    """Pure-Python tokenizer without offsets that loses whitespace and case; unknown words become <unk>."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012  (the parent class declares a list)

    def __init__(self, **settings: Any) -> None:
        """Know the test words, a few signs and nothing else."""
        self.words = ["<unk>", *dict.fromkeys(w.lower() for w in WORDS), ".", ",", "!"]
        super().__init__(unk_token="<unk>", **settings)

    @property
    def vocab_size(self) -> int:
        """Return the number of words."""
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        """Return the vocabulary."""
        return {word: number for number, word in enumerate(self.words)}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        for sign in ".,!":
            text = text.replace(sign, f" {sign} ")
        return text.lower().split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.index(token) if token in self.words else 0

    def _convert_id_to_token(self, index: int) -> str:
        return self.words[index]
