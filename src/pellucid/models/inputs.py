"""From a prompt to `Tokens`: text, a pair of texts, chat messages or token ids, checked before any model sees them."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pellucid.core.errors import InputError, TargetError
from pellucid.core.tokens import Tokens
from pellucid.models.chat import message_of_tokens, read_messages, render_chat
from pellucid.models.pieces import character_ranges, decode, decoded_pieces, raw_tokens

Form = Literal["text", "pair", "chat", "ids", "many"]

FORMS = (
    "a text, a tuple of two texts, a list of chat messages {'role': ..., 'content': ...}, "
    "or token ids as a list or a tensor of one row"
)
PAIR_JOINER = "\n"


class Encoded(NamedTuple):
    """A tokenised prompt and what a reader should know about how it came about."""

    tokens: Tokens
    notes: tuple[str, ...]


def prompt_form(prompt: object) -> Form:
    """Return which form of prompt this is; "many" for a sequence of prompts.

    A tuple of two texts is a pair, a list of texts is many prompts; a tensor with several rows is many prompts.

    Raises:
        InputError: It is none of the forms, or empty.
    """
    if isinstance(prompt, str):
        return "text"
    if hasattr(prompt, "tolist") and hasattr(prompt, "shape"):
        return "many" if len(prompt.shape) == 2 and prompt.shape[0] > 1 else "ids"  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(prompt, (list, tuple)):
        hint = "; pass its 'input_ids'" if isinstance(prompt, Mapping) and "input_ids" in prompt else ""
        raise InputError(f"A prompt is {FORMS}, but this is of type {type(prompt).__name__}{hint}.")
    if not prompt:
        raise InputError(f"The prompt is empty; give {FORMS}.")
    if isinstance(prompt[0], Mapping):
        return "chat"
    if all(isinstance(item, str) for item in prompt):
        return "pair" if isinstance(prompt, tuple) and len(prompt) == 2 else "many"
    if all(isinstance(item, (list, tuple, str)) or (hasattr(item, "tolist") and item.shape) for item in prompt):
        return "many"
    return "ids"


def encode(
    tokenizer: Any,
    prompt: object,
    *,
    kind: str,
    continue_chat: bool = True,
    max_length: int | None = None,
    vocabulary_size: int | None = None,
) -> Encoded:
    """Turn one prompt into tokens, with every character and every chat role accounted for.

    A text gets the tokenizer's own special tokens, marked `special`; a special token that the user typed is theirs and
    is not. A pair (encoders and encoder-decoders) has `message` 0 and 1, `segment` as the model wants it, and the two
    texts joined by a newline as `text`. A chat goes through the tokenizer's template: `special` marks what the template
    wrote, `message` and `roles` say whose content a token is; a last message by the assistant is left open for the
    model to continue unless `continue_chat=False`. Ids are taken as they are; those of special tokens other than the
    mask and the unknown token are marked `special`. Without a tokenizer only ids are taken; they are shown as ⟨17⟩.

    `offsets` tile the text (`text[start:end]` is the piece of every token that is not special), so that joining these
    pieces gives the text; they are None where a tokenizer loses characters and does not say where.

    Args:
        tokenizer: A Hugging Face tokenizer, or None.
        prompt: One prompt in any of the forms of `prompt_form`, "many" excepted.
        kind: "decoder", "encoder" or "encoder-decoder"; pairs are for models with an encoder.
        continue_chat: Leave a last message by the assistant open.
        max_length: The model's limit in tokens; None for no limit.
        vocabulary_size: The rows of the model's embedding; None to leave large ids unchecked.

    Returns:
        The tokens, and notes on anything that was changed or could not be placed exactly.

    Raises:
        InputError: The prompt is of no known form, empty, too long, not encodable, or not for this tokenizer.
    """
    form = prompt_form(prompt)
    notes: tuple[str, ...] = ()
    if form == "many":
        raise InputError("One prompt was expected, but a sequence of prompts was given; encode them one by one.")
    if form == "ids":
        tokens = _ids_tokens(tokenizer, _read_ids(prompt))
    elif tokenizer is None:
        raise InputError(f"A {form} was given, but the model has no tokenizer; load one with it, or give token ids.")
    elif form == "chat":
        tokens, notes = _chat_tokens(tokenizer, list(prompt), continue_chat)  # pyright: ignore[reportArgumentType]
    elif form == "pair":
        if kind == "decoder":
            raise InputError(
                "A pair of texts is for models with an encoder, but this is a decoder; join them yourself."
            )
        if not all(prompt):  # pyright: ignore[reportArgumentType]
            raise InputError("One text of the pair is empty; give two texts, or one text alone.")
        tokens = _text_tokens(tokenizer, *prompt)  # pyright: ignore[reportGeneralTypeIssues]
    else:
        tokens = _text_tokens(tokenizer, str(prompt))
    check_prompt(tokens, max_length=max_length, vocabulary_size=vocabulary_size)
    return Encoded(tokens, notes)


def check_prompt(tokens: Tokens, *, max_length: int | None = None, vocabulary_size: int | None = None) -> None:
    """Raise `InputError` for a prompt without a token of its own, too long, or with ids outside the vocabulary."""
    if not tokens.ids or all(tokens.special):
        raise InputError(
            f"The prompt {tokens.text[:40]!r} is empty: it has no token besides special ones; give at least one word."
        )
    if max_length is not None and len(tokens) > max_length:
        raise InputError(
            f"The prompt has {len(tokens)} tokens, but the model takes at most {max_length}; "
            "shorten it, or explain it in parts."
        )
    for position, number in enumerate(tokens.ids):
        if number < 0 or (vocabulary_size is not None and number >= vocabulary_size):
            size = f"has {vocabulary_size} ids from 0" if vocabulary_size is not None else "starts at 0"
            raise InputError(
                f"The id {number} at position {position} is not in the vocabulary, which {size}; "
                "use ids of this model's own tokenizer."
            )


def check_text(text: str, what: str = "The text") -> None:
    """Raise `InputError` for a text that is not encodable: half of a surrogate pair standing alone."""
    for position, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            raise InputError(
                f"{what} has the lone surrogate U+{ord(character):04X} at position {position}, which is no character; "
                "decode the text again from its bytes, or remove it."
            )


def _read_ids(prompt: Any) -> list[int]:
    """Return a list of Python integers from a sequence or a one-row tensor."""
    values = prompt.tolist() if hasattr(prompt, "tolist") else list(prompt)
    if hasattr(prompt, "shape") and len(prompt.shape) == 2 and len(values) == 1:
        values = values[0]
    if not isinstance(values, list):
        raise InputError(f"A single number was given as token ids; give {FORMS}.")
    if not values:
        raise InputError(f"The prompt is empty; give {FORMS}.")
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputError(
                f"A prompt is {FORMS}, but the item at position {position} is of type {type(value).__name__}."
            )
    return [int(value) for value in values]


def _control_ids(tokenizer: Any) -> set[int]:
    """Return the ids of special tokens, but not those that stand for words: the mask and the unknown token."""
    names = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id")
    others = {getattr(tokenizer, name, None) for name in names}  # GPT-2 has one token for all of these and the unknown
    words = {tokenizer.mask_token_id, tokenizer.unk_token_id} - others
    return set(tokenizer.all_special_ids) - words


def _ids_tokens(tokenizer: Any, ids: Sequence[int]) -> Tokens:
    """Describe given ids; their text is what they decode to, special tokens left out."""
    count = len(ids)
    if tokenizer is None:
        pieces = tuple(f"⟨{number}⟩" for number in ids)
        return Tokens(tuple(ids), pieces, (False,) * count, "", None, ("",) * count, (0,) * count, (0,) * count)
    control = _control_ids(tokenizer)
    special = [number in control for number in ids]
    pieces = decoded_pieces(tokenizer, ids)
    offsets, text = [], ""
    for piece, is_special in zip(pieces, special, strict=True):
        start = len(text)
        text += "" if is_special else piece
        offsets.append((start, len(text)))
    message = tuple(-1 if is_special else 0 for is_special in special)
    return Tokens(tuple(ids), tuple(pieces), tuple(special), text, tuple(offsets), ("",) * count, message, (0,) * count)


def _call(tokenizer: Any, *texts: str, add_special_tokens: bool = True) -> Any:
    """Call the tokenizer for everything it can say about one input, truncating nothing."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    return tokenizer(
        *texts,
        add_special_tokens=add_special_tokens,
        return_special_tokens_mask=True,
        return_offsets_mapping=fast,
        truncation=False,
        padding=False,
        verbose=False,
    )


def _text_tokens(tokenizer: Any, *texts: str) -> Tokens:
    """Encode one text or a pair with the tokenizer's own special tokens."""
    for number, text in enumerate(texts):
        check_text(text, "The text" if len(texts) == 1 else f"Text {number + 1} of the pair")
    encoding = _call(tokenizer, *texts)
    ids = [int(number) for number in encoding["input_ids"]]
    special = [bool(flag) for flag in encoding["special_tokens_mask"]]
    own = [position for position, flag in enumerate(special) if not flag]
    first = len(own)
    if len(texts) == 2:  # how many tokens the first text has: its special tokens aside, it is encoded as if alone
        first = len(own) - len(_call(tokenizer, texts[1], add_special_tokens=False)["input_ids"])
        if encoding.get("offset_mapping") is not None:
            first = sum(encoding.sequence_ids(0)[position] == 0 for position in own)
    ranges: list[tuple[int, int]] | None = []
    start = 0
    for text, positions in zip(texts, (own[:first], own[first:]), strict=False):
        offsets = encoding.get("offset_mapping")
        here = character_ranges(
            tokenizer, [ids[p] for p in positions], text, None if offsets is None else [offsets[p] for p in positions]
        )
        ranges = None if here is None or ranges is None else ranges + [(start + s, start + e) for s, e in here]
        start += len(text) + len(PAIR_JOINER)
    message = [-1] * len(ids)
    for rank, position in enumerate(own):
        message[position] = int(rank >= first)
    segment = encoding.get("token_type_ids") or [0] * len(ids)
    joined = PAIR_JOINER.join(texts)
    pieces, placed = _show(tokenizer, ids, special, joined, ranges)
    return Tokens(tuple(ids), pieces, tuple(special), joined, placed, ("",) * len(ids), tuple(message), tuple(segment))


def _show(
    tokenizer: Any, ids: Sequence[int], special: Sequence[bool], text: str, ranges: Sequence[tuple[int, int]] | None
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...] | None]:
    """Return pieces and offsets of all tokens, given the ranges of those that are not special."""
    if ranges is None:
        return tuple(decoded_pieces(tokenizer, ids)), None
    pieces, offsets = [], []
    remaining, at = iter(ranges), 0
    for number, is_special in zip(ids, special, strict=True):
        start, end = (at, at) if is_special else next(remaining)
        pieces.append(str(tokenizer.convert_ids_to_tokens(number)) if is_special else text[start:end])
        offsets.append((start, end))
        at = end
    return tuple(pieces), tuple(offsets)


def _chat_tokens(tokenizer: Any, chat: Sequence[Any], continue_chat: bool) -> Encoded:
    """Render a chat, encode the text as the template wants it, and give every token its message and role."""
    messages = read_messages(chat)
    for number, (role, content) in enumerate(messages):
        check_text(role, f"The role of message {number}")
        check_text(content, f"Message {number} of the chat")
    rendered = render_chat(tokenizer, messages, continue_chat=continue_chat)
    encoding = _call(tokenizer, rendered.text, add_special_tokens=False)
    ids = [int(number) for number in encoding["input_ids"]]
    reserved = _control_ids(tokenizer)
    control = [number in reserved for number in ids]
    ranges = character_ranges(tokenizer, ids, rendered.text, encoding.get("offset_mapping"))
    notes = list(rendered.notes)
    if ranges is None:
        notes.append("The tokenizer does not say where its tokens are in the text, so chat roles are unknown.")
        message = (-1,) * len(ids)
    else:
        message = message_of_tokens(rendered.text, ranges, rendered.ranges)
    pieces = _show(tokenizer, ids, [False] * len(ids), rendered.text, ranges)[0]
    notes += [
        f"Message {number} contains a control token of the model, which is read as such."
        for number in sorted({m for m, is_control in zip(message, control, strict=True) if is_control and m >= 0})
    ]
    placed = any(rendered.ranges) and ranges is not None
    special = tuple(m < 0 for m in message) if placed or not any(c.strip() for _, c in messages) else tuple(control)
    roles = tuple(rendered.roles[m] if m >= 0 else "" for m in message)
    offsets = None if ranges is None else tuple(ranges)
    return Encoded(
        Tokens(tuple(ids), pieces, special, rendered.text, offsets, roles, message, (0,) * len(ids)), tuple(notes)
    )


def target_ids(tokenizer: Any, text: str, *, prompt_tokens: Tokens | None = None) -> tuple[int, ...]:
    """Return the token ids of exactly this text as a continuation of the prompt.

    No space is added: after "The capital is", " Paris" and "Paris" are different targets. Where encoding prompt and
    target together begins with the prompt's own ids, what follows them is the target; otherwise (the two would merge
    into one token at the border, which the given prompt rules out) the target is encoded such that decoding prompt
    and target together gives their texts, one after the other. Without a prompt (the decoder of an
    encoder-decoder, the word behind a mask) the text is encoded as the start of a text.

    Raises:
        TargetError: The text is empty, there is no tokenizer, or the tokenizer does not know the text.
    """
    if tokenizer is None:
        raise TargetError(f"The target {text!r} is a text, but the model has no tokenizer; give token ids.")
    if not text:
        raise TargetError("The target is an empty text; give at least one character, or token ids.")
    check_text(text, "The target")
    if prompt_tokens is None:
        ids = list(tokenizer(text_target=text, add_special_tokens=False)["input_ids"])
    else:
        ids = _continuation(tokenizer, text, prompt_tokens)
    unknown = tokenizer.unk_token
    if not ids or (tokenizer.unk_token_id in ids and unknown not in text):
        raise TargetError(
            f"The target {text!r} holds something that this tokenizer does not know (it becomes {unknown!r}); "
            "choose a text of its vocabulary, or give token ids."
        )
    return tuple(int(number) for number in ids)


def _continuation(tokenizer: Any, text: str, prompt: Tokens) -> list[int]:
    """Encode a text as it would follow the prompt's ids."""

    def encoded(of: str) -> list[int]:
        return list(_call(tokenizer, of, add_special_tokens=False)["input_ids"])

    joint = encoded(prompt.text + text)
    own = [number for number, is_special in zip(prompt.ids, prompt.special, strict=True) if not is_special]
    for head in (list(prompt.ids), own):
        if len(joint) > len(head) and joint[: len(head)] == head:
            return joint[len(head) :]
    alone = encoded(text)
    candidates = [alone]
    for anchor in ("\n", ".", "a"):  # tokenizers that put a space in front of every text do not after these
        head, both = encoded(anchor), encoded(anchor + text)
        if both[: len(head)] == head:
            candidates.append(both[len(head) :])
    context = list(prompt.ids[-8:])
    wanted = decode(tokenizer, context) + text
    return next((ids for ids in candidates if decode(tokenizer, context + ids) == wanted), alone)


def one_token(tokenizer: Any, text: str, *, prompt_tokens: Tokens | None = None) -> int:
    """Return the id of a text that is exactly one token as a continuation of the prompt; see `target_ids`.

    Raises:
        TargetError: The text is several tokens (the sentence names the spelling that is one, if a space makes the
            difference), or one of the reasons of `target_ids`.
    """
    ids = target_ids(tokenizer, text, prompt_tokens=prompt_tokens)
    if len(ids) == 1:
        return ids[0]
    advice = "give the id of one of them, or explain all of them as a continuation."
    other = text.lstrip(" ") if text.startswith(" ") else " " + text
    try:
        if other and len(target_ids(tokenizer, other, prompt_tokens=prompt_tokens)) == 1:
            advice = f"{other!r} is one token: did you mean {other!r}?"
    except TargetError:
        pass
    shown = zip(decoded_pieces(tokenizer, ids), raw_tokens(tokenizer, ids), strict=True)
    names = ", ".join(repr(piece or raw) for piece, raw in shown)
    raise TargetError(f"The target {text!r} is {len(ids)} tokens ({names}) where one is needed; {advice}")
