"""Makes `synthetic-PRESET-N`: one head with known geometry, of any size.

    python -m datasets.synthetic --preset diffuse|middle|sharp [--tokens 131072] [--shift 1.2 ...]

Keys and values are linear images of one hidden state per token. The state is a sum of a topic that
lasts for a stretch, a token that recurs, a slow drift and noise. Queries are a third image of such
states, with fresh noise. The knobs:

    keys_for_90_percent  sharpness: how many of 131,072 keys hold 90% of the softmax mass (median);
                         the length of the queries is calibrated to it
    shift                how far queries lie outside the distribution of keys: keys get a mean, and
                         vary most in the directions in which queries vary least. Weights do not
                         change, only distances between keys: the same attention for every shift
    topic, token, drift  shares of the state's variance; the rest is noise
    needles, distractors keys of their own, each with near-equal ones elsewhere; one question in
                         NEEDLE_STRIDE asks for a needle
"""

import argparse
from dataclasses import asdict, fields, replace

import numpy as np

from . import common
from .sharpness import scores
from .synthetic_states import DRIFT_GRID, GROUP, HEAD_DIM, Images, Preset, States

LOGIT_SCALE = HEAD_DIM**-0.5
NEEDLE_STRIDE = 8
CALIBRATION_KEYS = 131072
CHUNK = 65536
QUESTION_STRIDE = 32

PRESETS = {
    "diffuse": Preset(keys_for_90_percent=43_000, topic=0.15, token=0.1),
    "middle": Preset(),
    "sharp": Preset(keys_for_90_percent=53, shift=1.2, topic=0.3, token=0.3),
}


def calibrate(questions, keys, keys_for_90_percent):
    """The factor for queries that gives the wanted median count of keys for 90% of the mass."""
    keys = np.asarray(keys[::max(1, len(keys) // CALIBRATION_KEYS)])
    wanted = keys_for_90_percent * len(keys) / CALIBRATION_KEYS
    logits = np.sort(LOGIT_SCALE * scores(questions, keys), axis=1)[:, ::-1]
    logits -= logits[:, :1]
    low, high = 1e-3, 1e3
    while high / low > 1.001:
        middle = np.sqrt(low * high)
        mass = np.cumsum(np.exp(middle * logits), axis=1, dtype=np.float64)
        count = np.median((mass < 0.9 * mass[:, -1:]).sum(axis=1) + 1)
        low, high = (middle, high) if count > wanted else (low, middle)
    return middle


def write_head(folder, head, preset, tokens, generator):
    """Writes the four arrays of one head."""
    states = States(preset, tokens + common.QUESTIONS * QUESTION_STRIDE + DRIFT_GRID, generator)
    images = Images(preset.shift, generator)
    copies = 1 + preset.distractors
    spots = np.sort(generator.choice(tokens, size=preset.needles * copies, replace=False))
    which = generator.permutation(np.arange(len(spots)) // copies)
    first = np.unique(which, return_index=True)[1]
    distance = generator.uniform(0.1, 0.6, size=len(spots))
    distance[first] = 0

    arrays = [np.lib.format.open_memmap(folder / f"{kind}_{head}.npy", mode="w+", dtype=np.float16,
                                        shape=(tokens, HEAD_DIM)) for kind in ("keys", "values")]
    for begin in range(0, tokens, CHUNK):
        end = min(tokens, begin + CHUNK)
        h = states.at(np.arange(begin, end), generator)
        inside = slice(*np.searchsorted(spots, (begin, end)))
        h[spots[inside] - begin] = states.near_needles(which[inside], distance[inside], generator)
        arrays[0][begin:end] = h @ images.key + images.key_mean
        arrays[1][begin:end] = h @ images.value

    def queries(positions):
        h = states.at(positions, generator)
        asked = np.arange(0, len(positions), NEEDLE_STRIDE)
        if preset.needles:
            needles = generator.integers(preset.needles, size=len(asked))
            h[asked] = states.near_needles(needles, np.full(len(asked), 0.5), generator)
        return images.to_queries(h)

    training = queries(common.sampled_rows(generator, tokens, GROUP))
    questions = queries(tokens + QUESTION_STRIDE * np.arange(common.QUESTIONS))
    some = questions.reshape(-1, HEAD_DIM)[::3]  # 3 is prime to GROUP and to NEEDLE_STRIDE
    factor = calibrate(some, arrays[0], preset.keys_for_90_percent)
    common.save_queries(folder, head, factor * training, factor * questions)


def make(preset_name, tokens, preset=None, heads=1, seed=1):
    """Writes the set and returns its folder."""
    preset = preset or PRESETS[preset_name]
    folder = common.new_set(f"synthetic-{preset_name}-{tokens}")
    for head in range(heads):
        write_head(folder, head, preset, tokens, np.random.default_rng([seed, head]))
    knobs = ", ".join(f"{name} {value:g}" for name, value in asdict(preset).items())
    common.write_description(folder, f"Made by formula: {knobs}.", tokens, HEAD_DIM, GROUP,
                             LOGIT_SCALE, [(0, head) for head in range(heads)])
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="middle")
    parser.add_argument("--name", help="instead of the preset's")
    parser.add_argument("--tokens", type=int, default=131072)
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    for field in fields(Preset):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    options = vars(parser.parse_args())
    changes = {f.name: options[f.name] for f in fields(Preset) if options[f.name] is not None}
    preset = replace(PRESETS[options["preset"]], **changes)
    name = options["name"] or options["preset"]
    print(make(name, options["tokens"], preset, options["heads"], options["seed"]))


if __name__ == "__main__":
    main()
