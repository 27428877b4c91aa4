"""The tiny model's tokenizer: byte-level BPE in which every word of the small world is one token.

The merges serve words the world does not have. The world's own words stand whole in the vocabulary, without the merges
that would build them (`ignore_merges`), so that few tokens are wasted on their beginnings.
"""

import json
import re
from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pellucid.zoo import chats, lexicon, tasks

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
MAX_LENGTH = 512
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))

# Words with the space before them, numbers two digits at a time, runs of other signs, line ends one by one.
_PIECES = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\n|\s+(?!\S)|\s+"


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _whole_words(documents: int) -> list[str]:
    """List the pieces that get a token of their own, as the byte-level alphabet spells them."""
    texts = [document.text for document in tasks.training_documents("tokenizer", documents)]
    words = [
        *tasks.WORDS,
        *lexicon.SURNAMES,
        *lexicon.STRANGERS,
        *lexicon.CRAFTS,
        *lexicon.INSTRUMENTS,
        *lexicon.EVENTS,
    ]
    words += [*lexicon.PRAISE, *lexicon.BLAME, *lexicon.REVIEWED, *(form for forms in lexicon.NOUNS for form in forms)]
    words += [name for row in lexicon.COUNTRIES for name in row]
    texts += [f" {word}" for word in words] * 8 + [f"{number:02d}" for number in range(100)] * 8
    splitter = _pre_tokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        plain = _SPECIAL.sub("\n", text)
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(plain))
    return sorted(piece for piece, count in counts.items() if count >= 8)


def _base(merged: int) -> Tokenizer:
    """Train plain byte-level merges on the world's words and the plain sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merged,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    words = [f" {word.lower()}" for word in (*tasks.WORDS, *lexicon.CRAFTS, *lexicon.PRAISE, *lexicon.BLAME)]
    tokenizer.train_from_iterator([*lexicon.PLAIN_SENTENCES * 4, *words], trainer)
    return tokenizer


def build(merged: int = 320, documents: int = 20000) -> PreTrainedTokenizerFast:
    """Train the tokenizer; it adds the first token by itself and carries the chat template."""
    base = _base(merged)
    pieces = sorted(base.get_vocab(), key=base.get_vocab().__getitem__)
    order = dict.fromkeys([*SPECIAL_TOKENS, *pieces, *_whole_words(documents)])
    merges = [(left, right) for left, right in json.loads(base.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(order)}, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    bos = SPECIAL_TOKENS[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[0],
        bos_token=bos,
        eos_token=SPECIAL_TOKENS[2],
        additional_special_tokens=list(SPECIAL_TOKENS[3:]),
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = chats.CHAT_TEMPLATE
    return wrapped


def first_ordinary(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id of the first token that is not special; all later ids are ordinary."""
    return max(tokenizer.all_special_ids) + 1
