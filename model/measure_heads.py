"""What each query head of the last layer attends: its needles, its margins, how wide it looks.

    python model/measure_heads.py --tokens 1048576

For questions: how often the right digit's key is first of all keys, the weight on it, and the
nats between it and the best other key. For plain text: how many keys hold half and 90% of the
weight (median over positions), which says how much a store must read for this head. Keys and
values are rounded to bfloat16.
"""

import argparse
import pathlib

import numpy as np

from evaluate_recall import QUESTION_ROOM_TOKENS, haystack
from recall_text import STATEMENTS, real_text
from reference_decoder import Decoder, load_model, prefill

PLAIN_POSITIONS = 20
SKIP_BYTES = 4_500_000  # past the text of training and of the haystack


def head_logits(decoder):
    """Logits of the latest query over all held keys, with length scaling: [Q, n]."""
    config = decoder.config
    keys = decoder.cache[-1][0][: decoder.position]
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    scale = np.log(decoder.position) / np.log(config["log_length_scaling_training_context"])
    queries = decoder.last_query * max(1.0, scale)
    return np.stack([keys[:, head // group] @ q for head, q in enumerate(queries)])


def keys_holding(logits, share):
    """Number of keys that together hold `share` of the softmax mass of logits [n]."""
    weights = np.sort(np.exp(logits - logits.max()))[::-1]
    return int(np.searchsorted(np.cumsum(weights), share * weights.sum())) + 1


def right_position(ids, digits, name):
    """Position of the first digit of the plain-template needle of this name."""
    statement = STATEMENTS[0].format(name=name, digits=digits)
    at = ids.astype(np.uint8).tobytes().find(statement.encode())
    assert at >= 0, statement
    return at + statement.rindex(digits)


def measure_needles(decoder, ids, questions):
    """Asks the first digit of each question; returns (first [n, Q], weight, margin in nats)."""
    state = decoder.snapshot()
    rows = []
    for question, digits in questions:
        decoder.restore(state)
        decoder.forward(np.frombuffer(question.encode(), np.uint8), logits_for="last")
        logits = head_logits(decoder)
        right = right_position(ids, digits, question.split()[3])
        own = logits[:, right].copy()
        total = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
        logits[:, right] = -np.inf
        other = logits.max(axis=1)
        rows.append((own > other, np.exp(own - total), own - other))
    decoder.restore(state)
    return [np.array(column) for column in zip(*rows)]


def measure_plain(decoder, text):
    """Keys that hold 50% and 90% of the mass at positions of text [n]: two arrays [n, Q]."""
    state = decoder.snapshot()
    half, most = [], []
    for piece in np.array_split(text, PLAIN_POSITIONS):
        decoder.restore(state)
        decoder.forward(piece, logits_for="last")
        logits = head_logits(decoder)
        half.append([keys_holding(row, 0.5) for row in logits])
        most.append([keys_holding(row, 0.9) for row in logits])
    decoder.restore(state)
    return np.array(half), np.array(most)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=pathlib.Path(__file__).parent / "recall")
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--near", type=float, default=0.0)
    args = parser.parse_args()
    config, tensors = load_model(args.model)
    rng = np.random.default_rng(args.seed)
    ids, questions = haystack(rng, args.tokens, 20, [0], args.near)
    decoder = Decoder(config, tensors, len(ids) + QUESTION_ROOM_TOKENS, bfloat16_kv=True)
    prefill(decoder, ids)
    first, weight, margin = measure_needles(decoder, ids, questions)
    text = real_text(PLAIN_POSITIONS * 100, SKIP_BYTES).astype(np.int32)
    half, most = measure_plain(decoder, text)
    for head in range(first.shape[1]):
        print(f"head {head}: right key first {first[:, head].sum()} of {len(first)}, weight "
              f"{weight[:, head].mean():.3f}, nats over the next key {margin[:, head].min():.1f} "
              f"least {np.median(margin[:, head]):.1f} median; plain text: "
              f"{np.median(half[:, head]):.0f} keys hold 50%, {np.median(most[:, head]):.0f} 90%")


if __name__ == "__main__":
    main()
