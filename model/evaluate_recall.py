"""Needle accuracy of a recall model: hides needles in real text, asks for each, counts.

    python model/evaluate_recall.py --tokens 1048576 --needles 20 --seed 1

The last layer's keys and values are rounded to bfloat16, as the store holds them.
"""

import argparse
import pathlib
import time

import numpy as np

from recall_text import HELD_OUT, TEMPLATES, hide, needle_names, random_digits, real_text
from reference_decoder import Decoder, load_model, prefill

QUESTION_ROOM_TOKENS = 128


def haystack(rng, tokens, needles, templates, near_share):
    """Returns (token ids int32 [tokens], [(question, digits)])."""
    names = needle_names(rng, needles, near_share)
    answers = [random_digits(rng) for _ in names]
    order = rng.permutation(templates)
    kinds = [TEMPLATES[order[i % len(order)]] for i in range(needles)]
    statements = [s.format(name=n, digits=d) for (s, _), n, d in zip(kinds, names, answers)]
    depths = (np.arange(needles) + 0.5) / needles
    text = real_text(tokens - sum(len(s) + 2 for s in statements))
    hidden = hide(text, statements, depths).astype(np.int32)
    if len(hidden) != tokens:
        raise SystemExit(f"only {len(text)} bytes of text found, {tokens} tokens wanted")
    questions = [("\n" + q.format(name=n), d) for (_, q), n, d in zip(kinds, names, answers)]
    return hidden, questions


def answer(decoder, question, digits_count):
    """Asks one question and continues greedily; returns the text of digits_count bytes."""
    logits = decoder.forward(np.frombuffer(question.encode(), np.uint8), logits_for="last")
    out = []
    for _ in range(digits_count):
        out.append(int(logits[0].argmax()))
        if len(out) < digits_count:
            logits = decoder.forward(np.array(out[-1:]), logits_for="last")
    return bytes(out).decode("latin-1")


def measure(decoder, tokens, questions, verbose=True):
    """Prefills tokens [n], asks every question from there; returns (right, digits right)."""
    prefill(decoder, tokens)
    state = decoder.snapshot()
    right = digits_right = 0
    for question, digits in questions:
        decoder.restore(state)
        got = answer(decoder, question, len(digits))
        right += got == digits
        digits_right += sum(a == b for a, b in zip(got, digits))
        if verbose and got != digits:
            print(f"  wrong: {question.strip()!r} wanted {digits} got {got!r}", flush=True)
    return right, digits_right


def evaluate(folder, tokens, seed, needles=20, templates=(0,), near_share=0.0):
    """Loads the model in `folder` and returns (needles answered in full, digits right)."""
    config, tensors = load_model(folder)
    rng = np.random.default_rng(seed)
    ids, questions = haystack(rng, tokens, needles, list(templates), near_share)
    decoder = Decoder(config, tensors, len(ids) + QUESTION_ROOM_TOKENS, bfloat16_kv=True)
    return measure(decoder, ids, questions)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=pathlib.Path(__file__).parent / "recall")
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--needles", type=int, default=20)
    parser.add_argument("--templates", default="plain",
                        help=f'"plain", "all", "held-out" or indices 0 to {len(TEMPLATES) - 1} '
                             'with commas between: pairs of statement and question')
    parser.add_argument("--near", type=float, default=0.0,
                        help="share of names that are one letter away from another name")
    args = parser.parse_args()
    start = time.monotonic()
    sets = {"plain": [0], "all": range(len(TEMPLATES)), "held-out": HELD_OUT}
    templates = sets.get(args.templates) or [int(i) for i in args.templates.split(",")]
    right, digits = evaluate(args.model, args.tokens, args.seed, args.needles, templates,
                             args.near)
    print(f"tokens {args.tokens} seed {args.seed} templates {args.templates} near {args.near}: "
          f"{right} of {args.needles} needles, {digits} of {4 * args.needles} digits, "
          f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
