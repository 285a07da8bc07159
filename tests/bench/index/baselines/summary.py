"""Prints a report of baselines.measure as a table: median over heads of the median error.

    python -m baselines.summary FILE.json
"""

import json
import statistics
import sys
from pathlib import Path


def table(report, statistic="median"):
    """Lines: one for each method, one column for each budget and one for the published setting."""
    columns = [*report["budgets"], None]
    titles = [f"{budget:.0%}" for budget in report["budgets"]] + ["published"]
    heads = len({row["head"] for row in report["rows"]})
    tuned = "questions, in hindsight" if report["hindsight"] else "training queries"
    yield (f"{report['set']}: {statistic} relative error, median over {heads} heads, by budget; "
           f"settings chosen on {tuned}")
    yield f"{'':36}" + "".join(f"{title:>9}" for title in titles)
    for method in dict.fromkeys(row["method"] for row in report["rows"]):
        cells = []
        for budget in columns:
            rows = [row for row in report["rows"]
                    if row["method"] == method and row["budget"] == budget]
            errors = [row["error"][statistic] for row in rows if row["error"]]
            if not errors:
                cells.append(f"{'-':>9}")
                continue
            cells.append(f"{statistics.median(errors):9.4f}")
            if budget is None:
                share = statistics.median(row["bytes_share"] for row in rows)
                cells.append(f" at {share:.1%}")
        yield f"{method:36}" + "".join(cells)


def print_summary(report):
    for line in table(report):
        print(line)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print_summary(json.loads(Path(sys.argv[1]).read_text()))
