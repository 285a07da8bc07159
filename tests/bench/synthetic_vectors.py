"""Writes queries, keys and values of one made-up head as .npy files, for `attic bench vectors`.

Keys and values are linear images of one hidden state that drifts through topics, as in a decoder;
queries come from another linear image, so they lie outside the distribution of the keys.
    python synthetic_vectors.py FOLDER TOKENS
"""

import sys
from pathlib import Path

import numpy as np

HIDDEN, HEAD_DIM, TOPICS = 96, 64, 2000
QUERY_STRIDE = 32


def make_head(tokens, seed=1):
    """(queries, keys, values): one query for every QUERY_STRIDE tokens."""
    generator = np.random.default_rng(seed)
    topics = generator.standard_normal((TOPICS, HIDDEN), dtype=np.float32)
    lengths = generator.geometric(1 / 40, size=tokens)
    topic = np.repeat(generator.integers(TOPICS, size=tokens), lengths)[:tokens]
    hidden = topics[topic] + 0.6 * generator.standard_normal((tokens, HIDDEN), dtype=np.float32)

    def image(states):
        matrix = generator.standard_normal((HIDDEN, HEAD_DIM), dtype=np.float32)
        return states @ matrix * np.float32(HIDDEN**-0.5)

    keys = image(hidden) + generator.standard_normal(HEAD_DIM, dtype=np.float32)
    values = image(hidden)
    queries = np.float32(1.5) * image(hidden[::QUERY_STRIDE])
    return queries, keys, values


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, tokens = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, vectors in zip(("queries", "keys", "values"), make_head(tokens)):
        np.save(folder / f"{name}.npy", vectors.astype(np.float16))


if __name__ == "__main__":
    main()
