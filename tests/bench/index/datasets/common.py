"""Where the data sets lie, and their format.

A data set is a folder of the cache. Every head H of it has four arrays, a row a vector:

    keys_H.npy, values_H.npy  float16, a row a token
    training_H.npy            float32, queries sampled while the keys were read
    questions_H.npy           float32, held-back queries whose attention over all keys is measured

The queries of a group follow one another. set.json describes the set and is written last, so a
folder that has it is complete. Vectors are as an engine would append them: rotated where the model
rotates, and without the logit scale.
"""

import json
import os
from pathlib import Path

import numpy as np

SAMPLE_STRIDE = 64
TRAINING_ROWS_MAX = 16384
QUESTIONS = 128


def cache_folder():
    """The cache of the benchmark, made if it is missing."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "attic" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_complete(name):
    return (cache_folder() / name / "set.json").is_file()


def new_set(name):
    """The empty folder of a set that is about to be written."""
    folder = cache_folder() / name
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder


def sampled_rows(generator, tokens, group):
    """Sorted positions of the training queries, one in SAMPLE_STRIDE, each giving `group` rows."""
    count = min(tokens // SAMPLE_STRIDE, TRAINING_ROWS_MAX // group)
    return np.sort(generator.choice(tokens, size=count, replace=False))


def save_queries(folder, head, training, questions):
    """Saves (n, group, head_dim) or (n, head_dim) queries, a group's rows together."""
    for kind, queries in (("training", training), ("questions", questions)):
        rows = np.ascontiguousarray(queries, dtype=np.float32)
        np.save(folder / f"{kind}_{head}.npy", rows.reshape(-1, rows.shape[-1]))


def save_head(folder, head, keys, values, training, questions):
    np.save(folder / f"keys_{head}.npy", np.ascontiguousarray(keys, dtype=np.float16))
    np.save(folder / f"values_{head}.npy", np.ascontiguousarray(values, dtype=np.float16))
    save_queries(folder, head, training, questions)


def write_description(folder, description, tokens, head_dim, group, logit_scale, heads):
    """Writes set.json. `heads` holds the (layer, kv head) of head 0, 1, ..."""
    content = {
        "name": folder.name,
        "tokens": tokens,
        "description": description,
        "head_dim": head_dim,
        "group": group,
        "logit_scale": logit_scale,
        "heads": [{"head": head, "layer": layer, "kv_head": kv_head}
                  for head, (layer, kv_head) in enumerate(heads)],
    }
    (folder / "set.json").write_text(json.dumps(content, indent=2) + "\n")
