"""What tiny-lm can do, measured on prompts that training never saw."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pellucid.zoo import tasks
from pellucid.zoo.tokenizer import first_ordinary
from pellucid.zoo.world import Item

_BATCH = 64


def _logits(model: PreTrainedModel, rows: Sequence[list[int]]) -> Tensor:
    """Run rows of token ids, padded on the right; logits [row, position, vocabulary] in float32."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    with torch.no_grad():
        return (
            model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
            .logits.float()
            .cpu()
        )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, start: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=start)["input_ids"])


def _judge(
    item: Item, judge: str, logits: Tensor, prompt: list[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[float, float]:
    """Judge one item by its logits [position, vocabulary]; return right (0 or 1) and the right answer's probability."""
    if judge == "choice":
        chances = logits[len(prompt) - 1].softmax(-1)
        right = sum(float(chances[_ids(tokenizer, answer)[0]]) for answer in item.answers)
        wrong = sum(float(chances[_ids(tokenizer, answer)[0]]) for answer in item.distractors)
        return float(right > wrong), right
    answer = torch.tensor(_ids(tokenizer, item.answers[0]))
    predicted = logits[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
    probability = predicted.log_softmax(-1).gather(-1, answer[:, None]).sum().exp()
    return float((predicted.argmax(-1) == answer).all()), float(probability)


def _repeated_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, count: int
) -> dict[str, object]:
    """Measure next-token accuracy in the second half of repeated random tokens (16 tokens, twice)."""
    generator = torch.Generator().manual_seed(1_000_003 + seed)
    low = first_ordinary(tokenizer)
    half = torch.randint(low, len(tokenizer), (count, 16), generator=generator)
    rows = torch.cat([torch.full((count, 1), tokenizer.bos_token_id), half, half], 1)
    logits = _logits(model, rows.tolist())[:, 17:-1]
    right = rows[:, 18:]
    return {
        "accuracy": float((logits.argmax(-1) == right).float().mean()),
        "probability": float(logits.softmax(-1).gather(-1, right[..., None]).mean()),
        "chance": 1 / (len(tokenizer) - low),
        "prompts": count,
        "judge": "greedy",
        "what": "next token in the second half of 16 repeated random tokens, its first token left out",
    }


def capabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int = 1, prompts: int = 200
) -> dict[str, dict[str, object]]:
    """Measure accuracy, mean probability of the right answer and chance level of every task.

    `greedy` tasks count a prompt as right if greedy decoding gives the whole answer; `choice` tasks if the right
    continuations together are more probable than the wrong ones.
    """
    judges = {task.name: task for task in tasks.TASKS if task.judge}
    work = []
    for item in tasks.evaluation_items(seed, prompts):
        prompt = _ids(tokenizer, item.prompt, start=True)
        answer = _ids(tokenizer, item.answers[0]) if judges[item.task].judge == "greedy" else []
        work.append((item, prompt, prompt + answer))
    work.sort(key=lambda entry: len(entry[2]))
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for start in range(0, len(work), _BATCH):
        batch = work[start : start + _BATCH]
        for (item, prompt, _), row in zip(batch, _logits(model, [ids for _, _, ids in batch]), strict=True):
            judge = judges[item.task].judge
            chance = 0.5 if judge == "choice" else 1 / (1 + len(item.distractors))
            scores[item.task].append((*_judge(item, judge, row, prompt, tokenizer), chance))
    found: dict[str, dict[str, object]] = {}
    for name, task in judges.items():
        accuracy, probability, chance = (sum(column) / len(column) for column in zip(*scores[name], strict=True))
        found[name] = {"accuracy": accuracy, "probability": probability, "chance": chance}
        found[name] |= {"prompts": len(scores[name]), "judge": task.judge, "what": task.what}
    found["repeat_tokens"] = _repeated_tokens(model, tokenizer, seed, prompts)
    return found
