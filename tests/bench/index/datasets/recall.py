"""Makes `recall-N`: the two kv heads of the recall model's full-attention layer.

    python -m datasets.recall [--tokens 1048576] [--vectors FOLDER]

Runs the repository's decoder_vectors, which must be built (preset release), or links what it wrote
into FOLDER before. Training queries are thinned out. Queries hold the model's length scaling, so
the logit scale is 1 / sqrt(head_dim).
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np

from . import common

REPOSITORY = Path(__file__).resolve().parents[4]
HEADS, GROUP, HEAD_DIM, LAYER = 2, 4, 64, 4


def thin(training):
    """At most TRAINING_ROWS_MAX rows, whole groups at even distances."""
    groups = training.reshape(-1, GROUP, training.shape[-1])
    stride = -(-len(training) // common.TRAINING_ROWS_MAX)
    return groups[::stride]


def make(tokens=1048576, vectors=None):
    """Writes the set and returns its folder."""
    folder = common.new_set(f"recall-{tokens}")
    if vectors is None:
        tool = REPOSITORY / "build/release/bin/decoder_vectors"
        subprocess.run([tool, REPOSITORY / "model/recall", folder, str(tokens)], check=True)
    else:
        for path in Path(vectors).resolve().glob("*_[01].npy"):
            (folder / path.name).symlink_to(path)
    for head in range(HEADS):
        training, questions = (np.load(folder / f"{kind}_{head}.npy")
                               for kind in ("training", "questions"))
        for kind in ("training", "questions"):
            (folder / f"{kind}_{head}.npy").unlink()  # a link's target stays as it is
        common.save_queries(folder, head, thin(training), questions)
    tokens = len(np.load(folder / "keys_0.npy", mmap_mode="r"))
    common.write_description(
        folder, "The recall model's full-attention layer reading real text with needles in it; "
        "questions are those of its answers.", tokens, HEAD_DIM, GROUP, HEAD_DIM**-0.5,
        [(LAYER, head) for head in range(HEADS)])
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=1048576)
    parser.add_argument("--vectors", help="a folder that decoder_vectors wrote")
    options = parser.parse_args()
    print(make(options.tokens, options.vectors))


if __name__ == "__main__":
    main()
