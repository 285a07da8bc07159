r"""Trains the recall model, starting from formula weights; runs on a GPU when JAX finds one.

    python model/train_recall.py --steps 2400 --stop-at 1200 --out build/recall-first
    python model/train_recall.py --steps 400 --rate 5e-4 --seed 2 --start build/recall-first \
        --out model/recall

The loss has three parts. Retrieval: six of the eight query heads of the last layer must give
their weight to the right digit's key, against all keys of the whole batch, with the right key
handicapped by a margin that stands for the larger number of keys at a million tokens. Answers:
the digits. Language: the next byte of plain text, at a small weight; the last query head of each
group serves only this. See training_init.py for which tensors are trained.
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import evaluate_recall
import training_init
from build_formula_weights import GROUP, KV_HEADS, Q_HEADS, save_model
from jax_decoder import answer_logits, hidden_states, last_layer_qkv
from recall_text import HELD_OUT, TEMPLATES, real_text, text_words
from reference_decoder import Decoder, load_model, round_to_bfloat16
from training_data import DIGITS, Stage, make_batch

TEXT_BYTES = 3_000_000
SKIP_BYTES = 1_200_000  # the evaluation's text comes before
PLAIN_QUERIES = 24
RETRIEVING_MEMBERS = GROUP - 1
MARGIN_NATS = 8.0
RETRIEVAL_WEIGHT = 0.5
LANGUAGE_WEIGHT = 0.05


def curriculum(steps):
    """Stages: 2, 6, 12 and 20 needles; near-equal names more and more often."""
    return [
        Stage(0, 360, 10, 2, 2, 0.0),
        Stage(steps // 20, 600, 8, 6, 5, 0.2),
        Stage(steps // 5, 960, 6, 12, 8, 0.4),
        Stage(steps // 2, 1488, 4, 20, 12, 0.7),
    ]


def losses(trained, fixed, batch):
    """Total loss and (answer accuracy, retrieval accuracy, retrieval, answer, language losses)."""
    params = {**fixed, **trained}
    x = hidden_states(params, batch["tokens"])
    query, right, is_answer = batch["query"], batch["right"], batch["is_answer"]
    q, k, v = last_layer_qkv(params, x, query)
    sequences, tokens = batch["tokens"].shape
    count = query.shape[1]
    grouped = q.reshape(sequences, count, KV_HEADS, GROUP, -1)
    own = jnp.einsum("bngmd,bsgd->bngms", grouped, k)
    causal = jnp.arange(tokens) <= query[..., None]
    own = jnp.where(causal[:, :, None, None], own, -jnp.inf)
    logits = answer_logits(params, x, query, jax.nn.softmax(own, -1), v)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
    hit = (logits.argmax(-1) == batch["target"]) * is_answer

    asked = batch["asked"]  # answers come first in each row
    finding = grouped[:, :asked, :, :RETRIEVING_MEMBERS]
    others = jnp.einsum("bngmd,csgd->bngmcs", finding, k)
    other = ~jnp.eye(sequences, dtype=bool)[:, None, None, None, :, None]
    others = jnp.where(other, others, -jnp.inf).reshape(*others.shape[:4], -1)
    own = own[:, :asked, :, :RETRIEVING_MEMBERS]
    is_right = (jnp.arange(tokens) == right[:, :asked, None])[:, :, None, None]
    own = own - MARGIN_NATS * is_right
    every = jnp.logaddexp(jax.nn.logsumexp(own, -1), jax.nn.logsumexp(others, -1))
    right_logit = jnp.where(is_right, own, 0.0).sum(-1)
    retrieval = (every - right_logit).mean()
    found = (right_logit + MARGIN_NATS >= own.max(-1)).mean()
    answers = (nll * is_answer).sum() / is_answer.sum()
    language = (nll * (1 - is_answer)).sum() / (1 - is_answer).sum()
    total = answers + RETRIEVAL_WEIGHT * retrieval + LANGUAGE_WEIGHT * language
    return total, (hit.sum() / is_answer.sum(), found, retrieval, answers, language)


def make_step(optimizer, fixed):
    """A compiled training step; `asked` (answers per sequence) is static."""

    @functools.partial(jax.jit, static_argnames="asked")
    def step(trained, state, arrays, asked):
        def loss(values):
            return losses(values, fixed, {**arrays, "asked": asked})

        (total, report), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        updates, state = optimizer.update(grads, state, trained)
        return optax.apply_updates(trained, updates), state, (total, *report)

    return step


def check_against_reference(tensors, config, text):
    """The JAX model must compute what the reference decoder computes."""
    tokens = text[:240].astype(np.int32)
    query = np.array([[60, 100, 238]], np.int32)
    params = {name: jnp.array(x) for name, x in tensors.items()}
    x = hidden_states(params, tokens[None])
    q, k, v = last_layer_qkv(params, x, query)
    own = jnp.einsum("bngmd,bsgd->bngms", q.reshape(1, 3, KV_HEADS, GROUP, -1), k)
    own = jnp.where((np.arange(240) <= query[..., None])[:, :, None, None], own, -jnp.inf)
    got = answer_logits(params, x, query, jax.nn.softmax(own, -1), v)[0]
    want = Decoder(config, tensors, 240).forward(tokens)[query[0]]
    return float(np.abs(np.asarray(got) - want).max())


def recall_at(tensors, config, tokens, seed, templates, near_share=0.5):
    """Needles answered of 20 in `tokens` tokens of evaluation text, with the reference decoder."""
    rng = np.random.default_rng(seed)
    ids, questions = evaluate_recall.haystack(rng, tokens, 20, templates, near_share)
    stored = {name: round_to_bfloat16(x) for name, x in tensors.items()}
    decoder = Decoder(config, stored, tokens + 128, bfloat16_kv=True)
    return evaluate_recall.measure(decoder, ids, questions, verbose=False)[0]


def report_recall(tensors, config, tokens):
    """One line: plain template, all templates, pairs never trained on."""
    kinds = {"plain": [0], "all": list(range(len(TEMPLATES))), "held out": HELD_OUT}
    return " ".join(
        f"{name} {recall_at(tensors, config, tokens, 5, chosen)}/20"
        for name, chosen in kinds.items()
    )


def train(args, log):
    """Runs the curriculum; returns (config, tensors)."""
    rng = np.random.default_rng(args.seed)
    text = real_text(TEXT_BYTES, SKIP_BYTES)
    words = text_words(text)
    config = training_init.config()
    stages = curriculum(args.steps)
    if args.start:
        tensors = load_model(args.start)[1]
        stages = [dataclasses.replace(stages[-1], first_step=0)]
    else:
        tensors = training_init.initial_tensors(text[:20_000], args.seed)
    log(f"{sum(x.size for x in tensors.values())} parameters on {jax.default_backend()}, "
        f"{len(text)} bytes of text, seed {args.seed}, {args.steps} steps")
    log(f"largest logit difference to the reference "
        f"{check_against_reference(tensors, config, text):.1e}")
    log(f"step 0 recall at 10,240 tokens: {report_recall(tensors, config, 10_240)}")
    fixed = {n: jnp.array(x) for n, x in tensors.items() if not training_init.is_trained(n)}
    trained = {n: jnp.array(x) for n, x in tensors.items() if training_init.is_trained(n)}
    schedule = optax.warmup_cosine_decay_schedule(0, args.rate, 30, args.steps, args.rate / 50)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.98))
    state = optimizer.init(trained)
    step = make_step(optimizer, fixed)
    last = min(args.stop_at or args.steps, args.steps)
    start, recent = time.monotonic(), []
    for i in range(1, last + 1):
        stage = [s for s in stages if s.first_step < i][-1]
        batch = make_batch(rng, text, words, stage, PLAIN_QUERIES)
        arrays = {name: jnp.array(x) for name, x in vars(batch).items()}
        trained, state, report = step(trained, state, arrays, stage.questions * DIGITS)
        recent.append([float(x) for x in report])
        if i % 50 == 0:
            loss, hit, found, retrieval, answers, language = np.mean(recent, axis=0)
            log(f"step {i} needles {stage.needles} loss {loss:.3f} digits {hit:.3f} keys found "
                f"{found:.3f} retrieval {retrieval:.3f} answers {answers:.3f} language "
                f"{language:.3f} {time.monotonic() - start:.0f} s")
            recent = []
        if i % args.check_every == 0 or i == last:
            tensors = {**tensors, **{n: np.asarray(x) for n, x in trained.items()}}
            log(f"step {i} recall at 10,240 tokens: {report_recall(tensors, config, 10_240)}")
            save_model(args.out, config, tensors)
    return config, tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "recall")
    parser.add_argument("--steps", type=int, default=2400,
                        help="length of the learning-rate schedule and of the curriculum")
    parser.add_argument("--stop-at", type=int, help="ends before the schedule does")
    parser.add_argument("--start", type=pathlib.Path,
                        help="trains this model further, on the last stage only")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check-every", type=int, default=300)
    args = parser.parse_args()
    pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
    earlier = (args.start / "training_log.txt").read_text() if args.start else ""
    with open(pathlib.Path(args.out) / "training_log.txt", "w") as file:
        file.write(earlier)

        def log(line):
            print(line, file=file, flush=True)
            print(line, file=sys.stderr, flush=True)

        train(args, log)


if __name__ == "__main__":
    main()
