"""From a program to weights: every feature is one dimension, every score one dimension of a head, nothing is trained.

In a GPT-2 one more dimension holds minus the sum of all features, so that the mean that LayerNorm takes away is zero,
and two more hold a constant so large (`BALLAST`) that the variance hardly depends on the features: the norms are there
and run, and with their gain they are the identity to a few parts in a million.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pellucid.models.constructed import TruthConfig, TruthForCausalLM
from pellucid.zoo.truth._program import BLANK, LONGEST, PAD, SCALE, START, Block, Head, Neuron, Program

BALLAST = 4096.0


def tokenizer(program: Program) -> Any:
    """Return the tokenizer of a program: one token per word, the start token in front."""
    order = {word: index for index, word in enumerate(program.vocabulary)}
    words = Tokenizer(models.WordLevel(order, unk_token=BLANK))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A $B", special_tokens=[(START, order[START])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, bos_token=START, unk_token=BLANK, model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def model(program: Program) -> Any:
    """Return the model of a program in float32: a GPT-2 where the program says so, else the project's own class."""
    with torch.no_grad():
        built = _gpt2(program) if program.gpt2 else _truth(program)
    built.generation_config.pad_token_id = program.vocabulary.index(PAD)
    built.generation_config.eos_token_id = built.config.eos_token_id = None
    return built.eval()


def _names(program: Program) -> dict[str, int]:
    return {name: index for index, name in enumerate(program.features)}


def _head_width(program: Program) -> int:
    return max(max(len(head.scores), len(head.moves)) for block in program.blocks for head in block.heads)


def _embedding(program: Program) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token embeddings, position embeddings and the unembedding, one column per feature."""
    names = _names(program)
    tokens = torch.zeros(len(program.vocabulary), len(names))
    for index, word in enumerate(program.vocabulary):
        if f"tok:{word}" in names:
            tokens[index, names[f"tok:{word}"]] = 1
    positions = torch.zeros(LONGEST, len(names))
    positions[:, names["one"]] = 1
    for index in range(LONGEST):
        if f"pos:{index}" in names:
            positions[index, names[f"pos:{index}"]] = 1
    unembedding = torch.zeros(len(program.vocabulary), len(names))
    for feature, word, amount in program.logits:
        unembedding[program.vocabulary.index(word), names[feature]] += SCALE * amount
    return tokens, positions, unembedding


def _projections(head: Head, names: dict[str, int], width: int) -> tuple[torch.Tensor, ...]:
    """Return query, key, value [width, features] and output [features, width] of one head."""
    query, key, value = (torch.zeros(width, len(names)) for _ in range(3))
    output = torch.zeros(len(names), width)
    for i, (feature, other, strength) in enumerate(head.scores):
        size = (abs(strength) * width**0.5) ** 0.5
        query[i, names[feature]] = size
        key[i, names[other]] = size if strength > 0 else -size
    for i, (source, place) in enumerate(head.moves):
        value[i, names[source]], output[names[place], i] = 1, 1
    return query, key, value, output


def _block(block: Block, names: dict[str, int], width: int) -> tuple[torch.Tensor, ...]:
    """Return the joint query, key, value [heads * width, features] and output [features, heads * width] of a block."""
    parts = list(zip(*(_projections(head, names, width) for head in block.heads), strict=True))
    return torch.cat(parts[0]), torch.cat(parts[1]), torch.cat(parts[2]), torch.cat(parts[3], 1)


def _neurons(neurons: tuple[Neuron, ...], names: dict[str, int], count: int) -> tuple[torch.Tensor, ...]:
    """Return up [count, features], bias [count] and down [features, count]; surplus neurons are zero."""
    up, bias, down = torch.zeros(count, len(names)), torch.zeros(count), torch.zeros(len(names), count)
    for i, neuron in enumerate(neurons):
        bias[i] = neuron.bias
        for name, amount in neuron.reads:
            up[i, names[name]] += amount
        for name, amount in neuron.writes:
            down[names[name], i] += amount
    return up, bias, down


def _truth(program: Program) -> Any:
    names, width = _names(program), _head_width(program)
    config = TruthConfig(
        vocab_size=len(program.vocabulary), hidden_size=len(names), head_dim=width,
        num_attention_heads=len(program.blocks[0].heads), mlp_widths=[len(block.neurons) for block in program.blocks],
        max_position_embeddings=LONGEST, features=program.features, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    built: Any = TruthForCausalLM(config)
    tokens, positions, unembedding = _embedding(program)
    built.model.tokens.weight.copy_(tokens)
    built.model.positions.weight.copy_(positions)
    built.lm_head.weight.copy_(unembedding)
    for layer, block in enumerate(program.blocks):
        module: Any = built.model.blocks[layer]
        places = (module.attn.q_proj, module.attn.k_proj, module.attn.v_proj, module.attn.o_proj)
        for place, weight in zip(places, _block(block, names, width), strict=True):
            place.weight.copy_(weight)
        if block.neurons:
            up, bias, down = _neurons(block.neurons, names, len(block.neurons))
            module.mlp.up.weight.copy_(up)
            module.mlp.up.bias.copy_(bias)
            module.mlp.down.weight.copy_(down)
    return built


def _gpt2(program: Program) -> Any:
    names = _names(program)
    heads = len(program.blocks[0].heads)
    width = max(_head_width(program), -(-(len(names) + 3) // heads))
    size, count = heads * width, max(len(block.neurons) for block in program.blocks)
    config = GPT2Config(
        vocab_size=len(program.vocabulary), n_positions=LONGEST, n_embd=size, n_layer=len(program.blocks), n_head=heads,
        n_inner=count, activation_function="relu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    built: Any = GPT2LMHeadModel(config)
    for parameter in built.parameters():
        parameter.zero_()
    tokens, positions, unembedding = _embedding(program)
    stack = built.transformer
    stack.wte.weight.copy_(_balanced(tokens, size))
    stack.wpe.weight.copy_(_balanced(positions, size))
    stack.wpe.weight[:, -2:] = torch.tensor([BALLAST, -BALLAST])
    built.lm_head.weight.copy_(_read(unembedding, size))
    gain = (2 * BALLAST**2 / size + config.layer_norm_epsilon) ** 0.5
    for layer, block in enumerate(program.blocks):
        module: Any = stack.h[layer]
        query, key, value, output = _block(block, names, width)
        up, bias, down = _neurons(block.neurons, names, count)
        for norm in (module.ln_1, module.ln_2):
            norm.weight.fill_(gain)
        # GPT-2 keeps its matrices as [input, output].
        module.attn.c_attn.weight.copy_(_read(torch.cat([query, key, value]), size).T)
        module.attn.c_proj.weight.copy_(_balanced(output.T, size))
        module.mlp.c_fc.weight.copy_(_read(up, size).T)
        module.mlp.c_fc.bias.copy_(bias)
        module.mlp.c_proj.weight.copy_(_balanced(down.T, size))
    stack.ln_f.weight.fill_(gain)
    return built


def _balanced(written: torch.Tensor, size: int) -> torch.Tensor:
    """Return [rows, size] from [rows, features]: what is written is taken away again in the balancing dimension."""
    wide = _read(written, size)
    wide[:, written.shape[1]] = -written.sum(1)
    return wide


def _read(reading: torch.Tensor, size: int) -> torch.Tensor:
    """Return [rows, size] from [rows, features]: other dimensions are not read."""
    return torch.nn.functional.pad(reading, (0, size - reading.shape[1]))
