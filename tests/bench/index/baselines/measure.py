"""Measures every baseline on a set of vectors: relative output error against bytes read.

    python -m baselines.measure SET --out FILE.json [--heads 0,3] [--questions 64] [--hindsight]

The error is against exact attention over all keys, in float64. Questions are groups of query heads,
evenly spread over those held back. A budget that does not pay for a method's summaries gives null.
Settings are chosen on training queries; with --hindsight on the questions themselves, which no
method could do and which therefore bounds what better tuning would bring.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
import torch

from .attention import exact_attention, relative_errors
from .head import Head
from .magic_pig import MagicPig
from .multipole import Multipole
from .quest import Quest
from .retro_infer import RetroInfer
from .summary import print_summary
from .top_k import GRAPH_VISITED_SHARE, TopK
from .vector_set import heads_argument, open_set, spread_groups

BUDGETS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.25)
SEED = 20261125  # of MagicPIG's hashes; nothing else is random


def all_methods():
    return [TopK(), TopK(GRAPH_VISITED_SHARE), RetroInfer(), RetroInfer(search_split=True),
            Quest(), MagicPig(SEED), Multipole()]


def describe(setting):
    return asdict(setting) if is_dataclass(setting) else setting


def statistics(errors):
    errors = np.concatenate(errors)
    return {"median": float(np.median(errors)), "mean": float(errors.mean()),
            "p90": float(np.percentile(errors, 90)), "p99": float(np.percentile(errors, 99))}


def measure_method(method, head, questions, exact, budgets):
    """Rows of the report: one for each budget, and one for the published setting."""
    method.use(head)
    method.tune(budgets)
    settings = [(budget, method.setting(budget)) for budget in budgets]
    if method.published is not None:
        settings.append((None, method.published))
    errors = [[] for _ in settings]
    shares = [[] for _ in settings]
    for queries, expected in zip(questions, exact):
        for place, (_, setting) in enumerate(settings):
            if setting is not None:
                outputs, bytes_read = method.answer(queries, setting)
                errors[place].append(relative_errors(outputs, expected).numpy())
                shares[place].append(bytes_read / head.all_bytes)
    return [{"method": method.name, "budget": budget, "published": budget is None,
             "setting": describe(setting),
             "bytes_share": float(np.mean(shares[place])) if shares[place] else None,
             "error": statistics(errors[place]) if errors[place] else None}
            for place, (budget, setting) in enumerate(settings)]


def measure_head(vector_set, number, question_groups, budgets, hindsight=False):
    vectors = vector_set.head(number)
    head = Head.of(vectors.keys, vectors.values,
                   vectors.questions if hindsight else vectors.training, vector_set.group,
                   vector_set.logit_scale, vector_set.folder, number)
    groups = torch.from_numpy(spread_groups(vectors.questions, vector_set.group, question_groups))
    exact = exact_attention(head.keys, head.values, groups.flatten(0, 1), head.logit_scale)
    exact = exact.unflatten(0, groups.shape[:2])
    rows = []
    for method in all_methods():
        begin = time.monotonic()
        rows += measure_method(method, head, list(groups), list(exact), budgets)
        print(f"head {number}: {method.name}, {time.monotonic() - begin:.1f} s", file=sys.stderr)
    return [{"head": number, **row} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", help="such as 0,3; all without it")
    parser.add_argument("--questions", type=int, default=64, help="groups of query heads a head")
    parser.add_argument("--hindsight", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vector_set = open_set(arguments.set)
    print(f"hash seed {SEED}", file=sys.stderr)
    report = {"set": vector_set.name, "tokens": vector_set.tokens,
              "head_dim": vector_set.head_dim, "group": vector_set.group,
              "question_groups": arguments.questions, "hindsight": arguments.hindsight,
              "seed": SEED, "budgets": BUDGETS, "rows": []}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for number in heads_argument(arguments.heads, vector_set):
        report["rows"] += measure_head(vector_set, number, arguments.questions, BUDGETS,
                                       arguments.hindsight)
        arguments.out.write_text(json.dumps(report, indent=1))  # after each head: runs are long
    print_summary(report)


if __name__ == "__main__":
    main()
