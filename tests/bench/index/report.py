"""Writes the report of the index benchmark from the results that are there.

    python report.py [FOLDER] [--publish]

FOLDER is build/bench_results, or what --quick left in build/bench_results/quick. Writes report.txt
and report.json there and plots into its folder plots; with --publish copies all to
tests/bench/results. The commit is that of the programs that measured Attic.
"""

import argparse
import json
import shutil
from pathlib import Path

import comparison
import ratios
import service
from machine import describe_machine
from report_text import render
from results import read_all, read_needles

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "build/bench_results"
PUBLISHED = ROOT / "tests/bench/results"

NOTES = {
    "frontier": """\
Relative L2 error of the output against exact attention; medians over questions, then over heads.
bytes: read for one question, as a share of all keys and values in bfloat16. A method counts at a
budget when it read at most 1.02 times the budget. best, method: the baseline of least error, and
how many others were best on other heads; oracles, which are told which keys matter, included.
ratio, worst: Attic's error divided by it, median over heads and on the worst head; errors below
0.0001 count as equal. heads: on how many Attic is at or below. without oracles: the same ratio to
methods that can be built.""",
    "search": """\
The 100 keys of largest inner product, one query at a time on one thread. Milliseconds of the
fastest setting that reaches the recall, median over heads; "-": on some head none did. Attic's time
includes attention over what was found, the others' includes the call from Python.""",
    "time": """\
One group of query heads on one thread, medians over questions, then over heads. Attic's times are
processor time; its default is max_error 0.05. Heads scan everything where their plan says so. Then
the policy of least time among all that were measured with a median error of at most 0.05.""",
    "build": """\
Attic's processor time, and hnswlib's time by the clock times its threads: the cheapest index that
addPoint built with 16 links and ef_construction 200.""",
    "growth": """\
The least time of all policies that were measured with the median error, at both sizes of a set.
Medians over the heads that are in both; so is the ratio.""",
    "appends": """\
Attention by the default policy on one thread, by the clock. rest: while nothing else runs. beside:
while another thread appends a fifth of the head and builds its segments. Both are measured
in turns, in one run. processor: the ratio of p99 in processor time, which waiting for a core does
not change. full tail: the ratio of p99 to that at rest with as many keys in no segment as there are
at most. core: the share of the time beside appends that the searching thread had one; much less
than 100% says that other programs disturbed. samples: beside. tokens/s: appended and built.""",
    "needles": """\
A made-up head with single keys hidden in it that have most of the weight of the questions asked for
them; distractors have logits 3 to 7 nats below. found: read exactly, and the output within 0.05 of
exact attention. bytes, worst: read for a question, as a share of all keys and values, mean and
worst. Times are processor time, medians.""",
}


def collect_set(results):
    measured = bool(comparison.both_heads(results, results.baselines))
    return {
        "tokens": results.tokens, "heads": sorted(results.attic),
        "question_groups": results.question_groups,
        "frontier": comparison.frontier(results, results.baselines) if measured else [],
        "published": comparison.published_settings(results, results.baselines),
        "frontier_hindsight": comparison.frontier(results, results.hindsight)
        if results.hindsight else [],
        "promises": service.promises(results), "search": service.search_table(results),
        "memory": service.memory(results), "milliseconds": service.milliseconds(results),
        "exact_attention": service.exact_attention(results),
        "torch": ratios.torch_ratios(results), "build": ratios.build_ratios(results),
        "appends": results.appends,
    }


def collect(all_results, machine, needles=()):
    return {"machine": machine, "notes": NOTES,
            "sets": {results.name: collect_set(results) for results in all_results},
            "growth": ratios.growth(all_results), "needles": list(needles)}


def publish(root):
    """Copies report and plots, in place of those published before."""
    PUBLISHED.mkdir(exist_ok=True)
    for pattern in ("*.svg", "report.*"):
        for old in PUBLISHED.glob(pattern):
            old.unlink()
    for path in (root / "report.txt", root / "report.json", *(root / "plots").glob("*.svg")):
        shutil.copy(path, PUBLISHED)


def write_report(root=RESULTS, publish_it=False):
    """Writes everything and returns the text."""
    from plots import write_plots  # matplotlib: the arithmetic can do without

    all_results = read_all(root)
    report = collect(all_results, describe_machine(ROOT, root), read_needles(root))
    text = "\n".join(render(report)) + "\n"
    (root / "report.txt").write_text(text)
    (root / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    write_plots(all_results, root / "plots")
    if publish_it:
        publish(root)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    print(write_report(options.folder, options.publish), end="")


if __name__ == "__main__":
    main()
