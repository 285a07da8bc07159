"""Runs the index benchmark and writes its report.

    python run_all.py [--quick] [--sets a,b] [--heads N] [--fresh] [--publish]

Results are kept in build/bench_results, those of --quick in build/bench_results/quick. A run that
was interrupted goes on where it stopped. What baselines and peers measured is kept; Attic is
measured again when its programs are newer than its results. --fresh forgets all results of the
chosen sets and of needles first; to go on with such a run, leave it away.
"""

import argparse
import filecmp
import shutil
from pathlib import Path

from machine import COMMIT_FILE, commit
from measuring import PROGRAMS, PROGRAMS_FOLDER, measure_needles, measure_set
from plan import chosen_plans
from report import write_report
from results import NEEDLE_FILES

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "build/bench_results"
BUILT = ROOT / "build/release/bin"


def keep_programs(root):
    """Copies the programs, so that a build does not change them in the middle of a run."""
    kept = root / PROGRAMS_FOLDER
    kept.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        built, copy = BUILT / name, kept / name
        if not copy.exists() or not filecmp.cmp(built, copy, shallow=False):
            copy.unlink(missing_ok=True)
            shutil.copy(built, copy)
            (root / COMMIT_FILE).write_text(commit(ROOT))


def forget(folder):
    """Removes the results of a set."""
    for pattern in ("attic_*", "append_*", "search_*", "baselines*", "peers*"):
        for old in folder.glob(pattern):
            old.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few heads of two small sets")
    parser.add_argument("--sets", help="names, such as encoder-114688,rotary-131072")
    parser.add_argument("--heads", type=int, help="at most so many heads of a set")
    parser.add_argument("--fresh", action="store_true", help="forget results first")
    parser.add_argument("--publish", action="store_true",
                        help="copy the report to tests/bench/results")
    options = parser.parse_args()
    try:
        plans = chosen_plans(options.sets and options.sets.split(","), options.quick)
    except KeyError as unknown:
        parser.error(f"no set {unknown}")
    root = RESULTS / "quick" if options.quick else RESULTS
    keep_programs(root)
    for plan in plans if options.fresh else ():
        forget(root / plan.name)
    for name in NEEDLE_FILES if options.fresh else ():
        (root / name).unlink(missing_ok=True)
    for plan in plans:
        measure_set(plan, options.heads, root)
    measure_needles(root, options.quick)
    print(write_report(root, options.publish), end="")


if __name__ == "__main__":
    main()
