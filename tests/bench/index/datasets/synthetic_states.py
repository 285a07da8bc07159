"""The hidden states of a made-up text, and their linear images: key, value and queries."""

from dataclasses import dataclass

import numpy as np

HIDDEN, HEAD_DIM, GROUP = 256, 128, 4
TOPICS, TOPIC_TOKENS = 512, 64  # how many, and the mean length of a stretch
VOCABULARY = 4096
DRIFT_GRID, DRIFT_TOKENS = 256, 20_000  # grid of the drift, and the length of its memory


@dataclass(frozen=True)
class Preset:
    keys_for_90_percent: int = 2000
    shift: float = 1.0
    topic: float = 0.25
    token: float = 0.15
    drift: float = 0.1
    needles: int = 64
    distractors: int = 8


def zipf(generator, kinds, size):
    weights = 1 / (np.arange(kinds) + 4.0)
    return generator.choice(kinds, size=size, p=weights / weights.sum())


def autoregressive(generator, length, memory):
    """(length, HIDDEN): unit variance, correlated over `memory` steps."""
    keep = np.exp(-1 / memory)
    rows = generator.standard_normal((length, HIDDEN))
    rows[1:] *= np.sqrt(1 - keep**2)
    for row in range(1, length):
        rows[row] += keep * rows[row - 1]
    return rows.astype(np.float32)


class States:
    """The hidden states of a text, computed where they are asked for."""

    def __init__(self, preset, tokens, generator):
        self.preset = preset
        lengths = generator.geometric(1 / TOPIC_TOKENS, size=tokens // TOPIC_TOKENS * 2 + 1000)
        self.topic = np.repeat(zipf(generator, TOPICS, len(lengths)), lengths)[:tokens]
        self.token = zipf(generator, VOCABULARY, tokens)
        self.topics = generator.standard_normal((TOPICS, HIDDEN), dtype=np.float32)
        self.vocabulary = generator.standard_normal((VOCABULARY, HIDDEN), dtype=np.float32)
        self.drift = autoregressive(generator, tokens // DRIFT_GRID + 2, DRIFT_TOKENS / DRIFT_GRID)
        self.needles = generator.standard_normal((preset.needles, HIDDEN), dtype=np.float32)

    def at(self, positions, generator):
        """(n, HIDDEN) states at the positions, with fresh noise."""
        p = self.preset
        step, part = np.divmod(positions, DRIFT_GRID)
        part = (part / DRIFT_GRID).astype(np.float32)[:, None]
        drift = (1 - part) * self.drift[step] + part * self.drift[step + 1]
        noise = generator.standard_normal((len(positions), HIDDEN), dtype=np.float32)
        return (np.sqrt(p.topic) * self.topics[self.topic[positions]]
                + np.sqrt(p.token) * self.vocabulary[self.token[positions]]
                + np.sqrt(p.drift) * drift
                + np.sqrt(1 - p.topic - p.token - p.drift) * noise).astype(np.float32)

    def near_needles(self, which, distance, generator):
        """(n, HIDDEN) states at a distance of 0 to 1 from the chosen needles."""
        noise = generator.standard_normal((len(which), HIDDEN), dtype=np.float32)
        distance = np.asarray(distance, np.float32).reshape(-1, 1)
        return np.sqrt(1 - distance**2) * self.needles[which] + distance * noise


class Images:
    """The linear maps from a hidden state to key, value and queries."""

    def __init__(self, shift, generator):
        def orthonormal(rows, columns):
            square = np.linalg.qr(generator.standard_normal((rows, rows)))[0]
            return square[:, :columns].astype(np.float32)

        seen, outer = orthonormal(HIDDEN, HEAD_DIM), orthonormal(HEAD_DIM, HEAD_DIM).T
        spectrum = np.exp(shift * np.linspace(-1, 1, HEAD_DIM)).astype(np.float32)
        weights = np.exp(0.3 * generator.standard_normal((GROUP, HEAD_DIM))).astype(np.float32)
        self.key = seen * spectrum @ outer
        self.key_mean = (shift * generator.standard_t(3, size=HEAD_DIM)).astype(np.float32)
        self.value = orthonormal(HIDDEN, HEAD_DIM)
        self.queries = np.stack([seen * (w / spectrum) @ outer for w in weights], axis=1)

    def to_queries(self, states):
        """(n, GROUP, HEAD_DIM)"""
        return np.einsum("nh,hgd->ngd", states, self.queries, optimize=True)
