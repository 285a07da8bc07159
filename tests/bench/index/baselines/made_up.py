"""A small made-up head for tests and first runs: keys and values of one drifting hidden state."""

import json
from pathlib import Path

import numpy as np


def made_up_head(tokens=2048, dim=16, group=2, questions=8, training=32, seed=1):
    """(keys, values, training, questions), float32; group * questions rows of questions."""
    generator = np.random.default_rng(seed)
    hidden = 2 * dim
    topics = generator.standard_normal((max(4, tokens // 64), hidden))
    topic = np.repeat(generator.integers(len(topics), size=tokens // 32 + 1), 32)[:tokens]
    states = topics[topic] + 0.6 * generator.standard_normal((tokens, hidden))

    def image(rows):
        return rows @ generator.standard_normal((hidden, dim)) / np.sqrt(hidden)

    keys = image(states) + generator.standard_normal(dim)
    values = image(states)
    asked = generator.integers(tokens, size=training + questions)
    queries = np.stack([1.5 * image(states[asked]) for _ in range(group)], axis=1)
    return tuple(array.reshape(-1, dim).astype(np.float32) for array in (
        keys, values, queries[:training], queries[training:]))


def write_made_up_set(folder, heads=1, group=2, dim=16, **sizes):
    """A data set of made-up heads, as described in vector_set."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for head in range(heads):
        keys, values, training, questions = made_up_head(
            group=group, dim=dim, seed=head + 1, **sizes)
        np.save(folder / f"keys_{head}.npy", keys.astype(np.float16))
        np.save(folder / f"values_{head}.npy", values.astype(np.float16))
        np.save(folder / f"training_{head}.npy", training)
        np.save(folder / f"questions_{head}.npy", questions)
    facts = {"name": "made-up", "tokens": len(keys), "head_dim": dim, "group": group,
             "logit_scale": dim**-0.5, "heads": [{"head": head} for head in range(heads)]}
    (folder / "set.json").write_text(json.dumps(facts))
