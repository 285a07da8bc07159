"""The arithmetic of the report: Attic's errors beside those of the baselines, at equal bytes.

Nothing is interpolated: a measurement counts at a budget when it read at most the budget and 2%
more. Of those, the baselines' best counts, and of Attic the one that read most, which is what
asking for the budget gives. Errors are medians over questions; over heads, medians again.
"""

from collections import Counter
from statistics import median
from typing import NamedTuple

BUDGETS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.25)
SLACK = 1.02
ROUNDING = 1e-4  # errors below are equal: numbers of 16 bits promise no more
ATTIC = "Attic"


class Point(NamedTuple):
    """One measurement of one head."""

    bytes_share: float
    error: float
    method: str


def attic_points(lines):
    """What budgets asked for; other policies may read less, but nobody asked them to."""
    return [Point(line["bytes_share"], line["error_median"], ATTIC) for line in lines
            if line["policy"] == "token_budget"]


def baseline_points(rows):
    return [Point(row["bytes_share"], row["error"]["median"], row["method"]) for row in rows
            if row["error"] is not None]


def is_oracle(method):
    """Of a method that is told which keys matter, which nobody could build."""
    return "oracle" in method


def best(points, budget, slack=SLACK):
    """The point of least error among those within the budget, or None."""
    within = [point for point in points if point.bytes_share <= budget * slack]
    return min(within, key=lambda point: point.error, default=None)


def asked(points, budget, slack=SLACK):
    """The point of most bytes among those within the budget, or None."""
    within = [point for point in points if point.bytes_share <= budget * slack]
    return max(within, default=None)


def ratio(ours, theirs):
    return max(ours, ROUNDING) / max(theirs, ROUNDING)


def both_heads(results, rows_of):
    """Heads that Attic and the baselines were measured on."""
    return sorted(results.attic.keys() & rows_of.keys())


def compare(pairs):
    """One line of the table from the (Attic's, best baseline's) points of the heads.

    A head on which either has no point is left out.
    """
    pairs = [pair for pair in pairs if None not in pair]
    if not pairs:
        return None
    ratios = [ratio(ours.error, theirs.error) for ours, theirs in pairs]
    return {"heads": len(pairs),
            "attic": median(ours.error for ours, _ in pairs),
            "baseline": median(theirs.error for _, theirs in pairs),
            "methods": Counter(theirs.method for _, theirs in pairs).most_common(),
            "ratio_median": median(ratios),
            "ratio_worst": max(ratios),
            "heads_at_or_below": sum(r <= 1 for r in ratios)}


def frontier(results, rows_of, budgets=BUDGETS):
    """Error against bytes: a line for each budget, with oracles among the baselines and without."""
    lines = []
    heads = both_heads(results, rows_of)
    ours = {head: attic_points(results.attic[head]) for head in heads}
    theirs = {head: baseline_points(rows_of[head]) for head in heads}
    for budget in budgets:
        line = {"budget": budget}
        for name, allowed in (("all", lambda method: True),
                              ("without_oracles", lambda method: not is_oracle(method))):
            line[name] = compare([
                (asked(ours[head], budget),
                 best([p for p in theirs[head] if allowed(p.method)], budget)) for head in heads])
        lines.append(line)
    return lines


def published_settings(results, rows_of):
    """At the bytes of each published setting, Attic reading no more than those."""
    pairs, shares = {}, {}
    for head in both_heads(results, rows_of):
        for row in rows_of[head]:
            if row["published"] and row["error"] is not None:
                theirs = Point(row["bytes_share"], row["error"]["median"], row["method"])
                ours = asked(attic_points(results.attic[head]), theirs.bytes_share, slack=1)
                pairs.setdefault(row["method"], []).append((ours, theirs))
                shares.setdefault(row["method"], []).append(theirs.bytes_share)
    return [{"method": method, "bytes_share": median(shares[method]), **compared}
            for method, found in pairs.items() if (compared := compare(found))]


def curve(heads_points):
    """(bytes share, error) medians over heads, rank by rank from few bytes to many.

    heads_points: for each head the points of one method, as many for each head or fewer.
    """
    ranks = [sorted(points) for points in heads_points]
    longest = max(map(len, ranks), default=0)
    columns = [[points[i] for points in ranks if i < len(points)] for i in range(longest)]
    return [(median(p.bytes_share for p in column), median(p.error for p in column))
            for column in columns]
