"""The demo on one store and on a cluster of several, one of which is killed in the middle: are the
answers the same?

    python cluster_demo.py [--json] [--stores N] [options of attic demo...]

Exit status 0 when every answer is the same and exact outputs differ by rounding only.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ATTIC = Path(os.environ.get("ATTIC_BIN", ROOT / "build/release/bin")) / "attic"
PROBES = 16
OUTPUT_ERROR_MAX = 1e-5


def command(*options):
    return [ATTIC, "demo", "--model", ROOT / "model/recall", "--json", "--probes", str(PROBES),
            *options]


def run_demo(*options):
    done = subprocess.run(
        command(*options), stdout=subprocess.PIPE, text=True, check=False)
    # 3: answers were wrong; they are reported.
    if done.returncode not in (0, 3):
        sys.exit(f"attic demo {' '.join(options)} failed")
    return json.loads(done.stdout)


def output_difference(one, other):
    """The largest |a - b| / |a| over probes."""
    worst = 0.0
    for a, b in zip(one["probes"], other["probes"], strict=True):
        difference = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
        worst = max(worst, difference / math.sqrt(sum(x * x for x in a)))
    return worst


def compare(one, cluster, stores):
    """Reports of the demo on one store and on a cluster."""
    pairs = list(zip(one["rows"], cluster["rows"], strict=True))
    return {
        "stores": stores,
        "killed": cluster["killed"],
        "tokens": one["tokens"],
        "questions": one["questions"],
        "correct_one_store": one["correct_retrieval"],
        "correct_cluster": cluster["correct_retrieval"],
        "same_answers": sum(a["answer"] == b["answer"] for a, b in pairs),
        "same_exact_answers": sum(a["exact_answer"] == b["exact_answer"] for a, b in pairs),
        "output_difference_worst": output_difference(one, cluster),
        "ms_per_token_one_store": one["ms_per_token_retrieval"],
        "ms_per_token_cluster": cluster["ms_per_token_retrieval"],
        "first_token_ratio_cluster": cluster["first_token_ratio"],
        "seconds_one_store": one["seconds"],
        "seconds_cluster": cluster["seconds"],
    }


def passed(report):
    return (report["same_answers"] == report["questions"] and
            report["same_exact_answers"] == report["questions"] and
            report["output_difference_worst"] <= OUTPUT_ERROR_MAX)


def print_report(report):
    print(f"""
{report['tokens']:,} tokens; a cluster of {report['stores']} stores with 2 replicas, of which \
{report['killed']} was killed between questions

                                 one store     cluster
right answers                     {report['correct_one_store']:4} / {report['questions']:<4} \
{report['correct_cluster']:4} / {report['questions']}
ms a token, attention        {report['ms_per_token_one_store']:13.3f} \
{report['ms_per_token_cluster']:11.3f}

the same answers through the index   {report['same_answers']} of {report['questions']}
the same exact answers               {report['same_exact_answers']} of {report['questions']}
largest difference of exact outputs  {report['output_difference_worst']:.1e}
""")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stores", type=int, default=3)
    arguments, options = parser.parse_known_args()
    one = run_demo(*options)
    report = compare(one, run_demo("--cluster", str(arguments.stores), *options),
                     arguments.stores)
    if arguments.json:
        print(json.dumps(report))
    else:
        print_report(report)
    return 0 if passed(report) else 1


if __name__ == "__main__":
    sys.exit(main())
