"""Train tiny-lm from nothing on text of the small world: `python -m pellucid.zoo.train_tiny_lm`.

It opens with nothing but repeated random tokens, drawn from a small pool that grows as the model learns to continue
them: the circuit that continues a repetition is slow to form, and several other tasks build on it. Two choices make it
form within minutes: embeddings start with a direction in common, which lets a query or key depend on position alone,
and the rotary base is small, which makes the token before easy to single out.

The data and the first weights depend on the seed alone; the learning rate falls to zero over `--steps`.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pellucid.zoo import cards, world
from pellucid.zoo import tokenizer as tokenizers
from pellucid.zoo.capabilities import capabilities
from pellucid.zoo.optimiser import Optimiser
from pellucid.zoo.packing import Batch, batches, repeats

STEPS = 9600
SHAPE = (12, 128)  # rows and tokens of a batch
CHUNK = 8000  # documents written at a time
REPEATS = 1000  # sequences of repeated random tokens among the documents of a chunk
POOL = 100  # tokens that the opening draws from at first
LEARNED = (
    0.8  # the opening's mean loss in nats below which its pool grows, and once it holds all tokens the opening ends
)
WARM_UP = 50  # steps
EMBEDDING_SCALE = 0.06  # standard deviation at the start; 0.02 caps the tied logits so low that copying starts late
COMMON = 2.0  # size of the direction that all embeddings share at the start, in the same unit
SNAPSHOTS = (0.0, 0.01, 0.02, 0.04, 0.06, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the steps
CHECKPOINT_SECONDS = 180


@dataclass
class Progress:
    """Count what a checkpoint must remember: steps and time done, and the place in the data.

    `pool` is the number of tokens the opening draws from (0 once it is over), `loss` its running mean.
    """

    step: int = 0
    pool: int = POOL
    loss: float = 10.0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    chunk: int = 0
    batch: int = 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def configuration(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Describe the model: an unmodified Llama decoder with grouped keys and values and tied embeddings."""
    return LlamaConfig(
        vocab_size=-(-len(tokenizer) // 32) * 32,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=tokenizers.MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 300.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the weighted mean cross-entropy in nats over the batch's tokens that carry weight."""
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.mask(), position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    weights = batch.weights[:, 1:]
    chosen = weights > 0
    losses = functional.cross_entropy(model.lm_head(hidden[:, :-1][chosen]), batch.ids[:, 1:][chosen], reduction="none")
    return (losses * weights[chosen]).sum() / weights.sum()


def _stream(tokenizer: PreTrainedTokenizerFast, seed: int, progress: Progress) -> Iterator[Batch]:
    """Yield batches from the place `progress` remembers, and keep it up to date."""
    while progress.pool:
        yield repeats(tokenizer, f"{seed} {progress.step}", progress.pool)
    while True:
        for index, batch in enumerate(batches(tokenizer, f"{seed} {progress.chunk}", CHUNK, REPEATS, SHAPE)):
            if index >= progress.batch:
                progress.batch = index + 1
                yield batch
        progress.chunk, progress.batch = progress.chunk + 1, 0


def _grow(progress: Progress, loss: float, tokens: int) -> None:
    """Widen the opening's pool of tokens when it is learned, and end the opening when that is all `tokens`."""
    progress.loss = 0.9 * progress.loss + 0.1 * loss
    if progress.loss < LEARNED:
        full = progress.pool >= tokens
        progress.pool = 0 if full else min(tokens, int(1.2 * progress.pool))
        progress.loss += 0.1


def _save_checkpoint(folder: Path, model: LlamaForCausalLM, optimiser: Optimiser, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    new = folder / "new.safetensors"
    save_file(weights | optimiser.tensors(), new, {"progress": json.dumps(vars(progress))})
    new.replace(folder / "checkpoint.safetensors")


def _load_checkpoint(folder: Path, model: LlamaForCausalLM, optimiser: Optimiser) -> Progress:
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return Progress()
    tensors = load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[f"model.{name}"])
    optimiser.restore(tensors)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return Progress(**json.loads(header["__metadata__"]["progress"]))


def first_weights(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Draw the weights that training starts from."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(configuration(tokenizer))
    embedding = model.model.embed_tokens.weight
    torch.nn.init.normal_(embedding, std=EMBEDDING_SCALE)
    with torch.no_grad():
        embedding += EMBEDDING_SCALE * COMMON * torch.randn(embedding.shape[1])
    return model


def train(
    tokenizer: PreTrainedTokenizerFast, steps: int, seed: int, checkpoints: Path, resume: bool, snapshots: Path | None
) -> tuple[LlamaForCausalLM, Progress]:
    """Train a model for `steps` steps, leaving snapshots along the way if asked; return it with what was done."""
    model = first_weights(tokenizer, seed)
    optimiser = Optimiser(model.named_parameters(), matrix_rate=0.02, other_rate=0.004, decay=0.05)
    progress = _load_checkpoint(checkpoints, model, optimiser) if resume else Progress()
    before = (progress.seconds, progress.processor_seconds)
    started, worked, saved = time.monotonic(), time.process_time(), time.monotonic()
    mean, last = 0.0, progress.step
    for batch in _stream(tokenizer, seed, progress):
        if snapshots and progress.step in {int(part * steps) for part in SNAPSHOTS}:
            save(copy.deepcopy(model), tokenizer, snapshots / f"step-{progress.step:05d}")
        if progress.step >= steps:
            break
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(min((progress.step + 1) / WARM_UP, 1.0) * min(1.0, 1.5 * (1 - progress.step / steps)))
        progress.step += 1
        if progress.pool:
            _grow(progress, loss.item(), len(tokenizer) - tokenizers.first_ordinary(tokenizer))
        progress.seconds = before[0] + time.monotonic() - started
        progress.processor_seconds = before[1] + time.process_time() - worked
        mean += loss.item()
        if progress.step % 100 == 0:
            mean /= progress.step - last
            _say(f"step {progress.step}  {progress.seconds:.0f} s  loss {mean:.4f}  pool {progress.pool}")
            mean, last = 0.0, progress.step
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save_checkpoint(checkpoints, model, optimiser, progress)
            saved = time.monotonic()
    return model.eval(), progress


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> LlamaForCausalLM:
    """Write the model with weights rounded to bfloat16, which load as float32; return the model as a reader gets it."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")],
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=32,
        do_sample=False,
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text())
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return LlamaForCausalLM.from_pretrained(out)


def main() -> None:
    """Train, save, measure and write the card."""
    parser = argparse.ArgumentParser(description="Train tiny-lm on text of the small world.")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models" / "tiny-lm")
    parser.add_argument("--checkpoints", type=Path, default=Path("tiny-lm-checkpoints"), help="folder for checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--snapshots", type=Path, help="folder for ten models from along the way (30 MB)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = tokenizers.build()
    model, progress = train(
        tokenizer, options.steps, options.seed, options.checkpoints, options.resume, options.snapshots
    )
    model = save(model, tokenizer, options.out)
    measured = capabilities(model, tokenizer)
    for name, row in measured.items():
        _say(f"{name:18} {row['accuracy']:.3f}  probability {row['probability']:.3f}  chance {row['chance']:.3f}")
    run = {
        "minutes": round(progress.seconds / 60, 1),
        "processor_minutes": round(progress.processor_seconds / 60, 1),
        "steps": progress.step,
        "threads": options.threads,
        "seed": options.seed,
        "world": world.fingerprint(),
    }
    cards.write(options.out, measured, run, len(world.facts()), model.num_parameters())


if __name__ == "__main__":
    main()
