"""Makes the data sets that the cache lacks, and prints the folder of each.

    python -m datasets.make_all [--only NAME ...] [--device cuda]
"""

import argparse

import torch

from . import common, encoder, recall, rotary, synthetic


def makers(options):
    """Name of a set: the call that makes it. The quick ones come first."""
    sets = {"encoder-114688": lambda: encoder.make(114688)}
    for tokens in (131072, 1048576):
        for preset in synthetic.PRESETS:
            sets[f"synthetic-{preset}-{tokens}"] = (
                lambda preset=preset, tokens=tokens: synthetic.make(preset, tokens))
    sets["encoder-1048576"] = lambda: encoder.make(1048576, encoder.SPREAD_HEADS)
    sets["recall-1048576"] = lambda: recall.make(1048576, options.recall_vectors)
    sets["rotary-131072"] = lambda: rotary.make(131072, device=options.device)
    sets["rotary-scaled-131072"] = lambda: rotary.make(131072, scaled=True, device=options.device)
    return sets


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", help="names of sets")
    parser.add_argument("--recall-vectors", help="a folder that decoder_vectors wrote")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sets = makers(options)
    for name in options.only or sets:
        if name not in sets:
            parser.error(f"no set {name}; there are {', '.join(sets)}")
        if not common.is_complete(name):
            sets[name]()
        print(common.cache_folder() / name, flush=True)


if __name__ == "__main__":
    main()
