"""Prints how sharp each head of a set is: what its questions attend to, exactly.

    python -m datasets.sharpness NAME

For each head the medians over its questions: the share of the softmax mass that the best 1% of the
keys hold, how many keys hold 90% of it, and the Mahalanobis distance of a question from the keys
over that of a key (above 1: questions lie outside the distribution of the keys).
"""

import json
import sys

import numpy as np

from .common import cache_folder

CHUNK_ROWS = 65536
BLOCK_QUERIES = 16
DISTANCE_KEYS = 16384


def scores(queries, keys):
    """(queries, keys) inner products, read from the file a chunk of rows at a time."""
    result = np.empty((len(queries), len(keys)), np.float32)
    for row in range(0, len(keys), CHUNK_ROWS):
        chunk = np.asarray(keys[row:row + CHUNK_ROWS], np.float32)
        result[:, row:row + CHUNK_ROWS] = queries @ chunk.T
    return result


def mass_of(logits):
    """(mass of the best 1% of the keys, number of keys that hold 90%) for each row of logits."""
    best, counts = [], []
    for row in logits:
        weights = np.sort(np.exp(row.astype(np.float64) - row.max()))[::-1]
        mass = np.cumsum(weights) / weights.sum()
        best.append(mass[max(1, len(mass) // 100) - 1])
        counts.append(int(np.searchsorted(mass, 0.9)) + 1)
    return np.array(best), np.array(counts)


def head_sharpness(keys, questions, logit_scale, questions_max=128):
    """(share of the best 1%, keys for 90%), medians over at most questions_max questions."""
    chosen = np.random.default_rng(0).permutation(questions)[:questions_max]
    parts = [mass_of(scores(chosen[row:row + BLOCK_QUERIES], keys) * logit_scale)
             for row in range(0, len(chosen), BLOCK_QUERIES)]
    best, counts = (np.concatenate(part) for part in zip(*parts))
    return float(np.median(best)), int(np.median(counts))


def relative_distance(keys, questions):
    """Median Mahalanobis distance of the questions from the keys over that of the keys."""
    sample = np.asarray(keys[::max(1, len(keys) // DISTANCE_KEYS)], np.float64)
    inverse = np.linalg.pinv(np.cov(sample.T))

    def distance(vectors):
        centred = vectors - sample.mean(axis=0)
        return np.median(np.sqrt(np.einsum("ij,jk,ik->i", centred, inverse, centred)))

    return float(distance(questions.astype(np.float64)) / distance(sample))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = cache_folder() / sys.argv[1]
    description = json.loads((folder / "set.json").read_text())
    print("head  layer  kv head  mass of best 1%  keys for 90%  distance")
    for head in description["heads"]:
        keys = np.load(folder / f"keys_{head['head']}.npy", mmap_mode="r")
        questions = np.load(folder / f"questions_{head['head']}.npy")
        best, count = head_sharpness(keys, questions, description["logit_scale"])
        distance = relative_distance(keys, questions)
        print(f"{head['head']:4}  {head['layer']:5}  {head['kv_head']:7}  {best:15.3f}  {count:12,}"
              f"  {distance:8.2f}")


if __name__ == "__main__":
    main()
