"""A folder of keys, values and queries, as the benchmark's data sets write it.

Per head H: keys_H.npy and values_H.npy, float16 (tokens, dim); training_H.npy and questions_H.npy,
float32 (n, head_dim), where the query heads of one group stand in consecutive rows. set.json says
name, tokens, head_dim, group, logit_scale and, with the number H of each, heads.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class HeadVectors:
    """One kv head: keys, values float16; training, questions float32."""

    keys: np.ndarray
    values: np.ndarray
    training: np.ndarray
    questions: np.ndarray


@dataclass(frozen=True)
class VectorSet:
    folder: Path
    name: str
    tokens: int
    head_dim: int
    group: int
    logit_scale: float
    heads: tuple[int, ...]

    def head(self, head):
        names = ("keys", "values", "training", "questions")
        arrays = {name: np.load(self.folder / f"{name}_{head}.npy") for name in names}
        keys = arrays["keys"]
        if keys.shape != (self.tokens, self.head_dim):
            raise ValueError(f"keys_{head}.npy: {keys.shape}, set.json says "
                             f"{(self.tokens, self.head_dim)}")
        return HeadVectors(**arrays)


def open_set(folder):
    folder = Path(folder)
    facts = json.loads((folder / "set.json").read_text())
    return VectorSet(folder, facts["name"], facts["tokens"], facts["head_dim"], facts["group"],
                     facts["logit_scale"], tuple(head["head"] for head in facts["heads"]))


def heads_argument(text, vector_set):
    """The heads of "0,3", or all heads where text is None."""
    if text is None:
        return vector_set.heads
    return tuple(int(head) for head in text.split(","))


def spread_groups(queries, group, count):
    """(count or fewer, group, dim): whole groups, evenly spread over all that there are."""
    groups = queries[: len(queries) // group * group].reshape(-1, group, queries.shape[1])
    chosen = np.linspace(0, len(groups) - 1, min(count, len(groups))).round().astype(int)
    return groups[np.unique(chosen)]
