"""Makes `rotary-N`: heads of a decoder with rotated keys that reads N tokens of real text at once.

    python -m datasets.rotary [--tokens 131072] [--scaled] [--device cuda]

The decoder of train_rotary.py, trained first if the cache has none, reads N + 4,096 tokens of text
it was not trained on, with full causal attention in float32. Every kv head of every layer is one
head of the set; queries and keys are rotated. Training queries come from among the keys, questions
from 128 positions spread over the 4,096 tokens that follow them. With --scaled the set is
`rotary-scaled-N`: queries hold a length scaling, which keeps a decoder trained on short pieces from
losing itself among so many keys; its loss is lower and its heads are sharper.
"""

import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

from . import common, train_rotary
from .rotary_model import Decoder, Shape, causal_attention, length_scaling, rotation
from .text import corpus

AFTER = 4096


def load_model():
    """The trained decoder and its tokenizer, from the cache."""
    folder = common.cache_folder() / "rotary_model"
    if not (folder / "config.json").is_file():
        train_rotary.main([])
    model = Decoder(Shape(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def held_out_ids(tokenizer, count, seed):
    """Ids of `count` tokens of held-out text, the first of them the begin token."""
    _, texts = corpus(seed)
    ids = train_rotary.encode(tokenizer, texts, count - 1)
    if len(ids) < count - 1:
        raise SystemExit(f"this machine has {len(ids):,} of {count:,} held-out tokens")
    begin = tokenizer.token_to_id(train_rotary.BEGIN)
    return torch.from_numpy(np.concatenate(([begin], ids)).astype(np.int64))


@torch.no_grad()
def read(model, ids, scaled):
    """Yields rotated queries, rotated keys and values of each layer, (heads, tokens, head_dim), and
    prints the loss."""
    x = model.embedding(ids[None])
    positions = torch.arange(len(ids), device=ids.device)
    cos, sin = rotation(positions[None], model.shape)
    scaling = length_scaling(positions, model.shape)[:, None] if scaled else 1
    for number, layer in enumerate(model.layers):
        begin = time.monotonic()
        queries, keys, values = layer.heads(x, cos, sin)
        heads = (queries * scaling, keys, values)
        yield tuple(h[0].cpu().numpy() for h in heads)
        x = layer.finish(x, causal_attention(*heads))
        print(f"layer {number} read in {time.monotonic() - begin:.0f} s", flush=True)
    begins = torch.arange(0, len(ids) - 1, AFTER)
    losses = [F.cross_entropy(model.lm_head(model.norm(x[0, b:b + AFTER]))[:len(ids) - 1 - b],
                              ids[b + 1:b + 1 + AFTER]).item() for b in begins.tolist()]
    parts = ", ".join(f"{np.mean(p):.3f}" for p in np.array_split(losses, min(4, len(losses))))
    print(f"loss of the text, quarter by quarter: {parts}")


def make(tokens=131072, scaled=False, device="cpu", seed=1):
    """Writes the set and returns its folder."""
    model, tokenizer = load_model()
    shape = model.shape
    ids = held_out_ids(tokenizer, tokens + AFTER, seed)
    rows = common.sampled_rows(np.random.default_rng(seed), tokens, shape.group)
    asked = tokens + AFTER // common.QUESTIONS * np.arange(common.QUESTIONS)
    folder = common.new_set(f"rotary-scaled-{tokens}" if scaled else f"rotary-{tokens}")
    layers = read(model.to(device), ids.to(device), scaled)
    for layer, (queries, keys, values) in enumerate(layers):
        grouped = queries.reshape(shape.kv_heads, shape.group, *queries.shape[1:])
        for kv_head in range(shape.kv_heads):
            of_group = grouped[kv_head].swapaxes(0, 1)  # (tokens, group, head_dim)
            common.save_head(folder, layer * shape.kv_heads + kv_head, keys[kv_head, :tokens],
                             values[kv_head, :tokens], of_group[rows], of_group[asked])
    common.write_description(
        folder, f"A decoder of {shape.layers} layers with rotated queries and keys, trained on "
        "this machine's text, reading text of this machine that it was not trained on, "
        f"{'with' if scaled else 'without'} length scaling of the queries.",
        tokens, shape.head_dim, shape.group, shape.head_dim**-0.5,
        [(layer, kv_head) for layer in range(shape.layers) for kv_head in range(shape.kv_heads)])
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--scaled", action="store_true", help="with length scaling")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(make(options.tokens, options.scaled, options.device, options.seed))


if __name__ == "__main__":
    main()
