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
import service
from machine import describe_machine
from report_text import render
from results import read_all

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
processor time; its default is max_error 0.05. Every head goes through the index here, also where a
store would scan because that is faster.""",
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
    }


def collect(all_results, machine):
    return {"machine": machine, "notes": NOTES,
            "sets": {results.name: collect_set(results) for results in all_results}}


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
    report = collect(all_results, describe_machine(ROOT, root))
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
