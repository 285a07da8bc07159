"""The arithmetic of the report: Attic's times beside PyTorch's and hnswlib's, and as texts grow."""

from statistics import median

from plan import PLANS

ERROR = 0.05          # median, that the fastest policy beside PyTorch may have
ERRORS = (0.05, 0.1)  # the same of growth
HNSW_EXPANSION = 200  # ef_construction
SMALL, LARGE = (114688, 131072), 1048576  # tokens


def fastest(results, head, error):
    """The line of least time of those with at most this median error, whatever its policy."""
    lines = [line for line in results.attic[head] if line.get("error_median", 2) <= error]
    return min(lines, key=lambda line: line["milliseconds"], default=None)


def policy_name(line):
    return f"{line['policy']} {line['amount']:g}" if line["amount"] else line["policy"]


def torch_ratios(results):
    """PyTorch's times over those of Attic's fastest policy, on the same head and one thread each.

    Heads that no policy was measured on within ERROR are left out.
    """
    rows = []
    for head, found in sorted(results.attention.items()):
        line = fastest(results, head, ERROR) if head in results.attic else None
        if line is not None:
            torch = {row["element"]: row["ms"] for row in found if row["threads"] == 1}
            ratios = {f"{element}_ratio": torch[element] / line["milliseconds"]
                      if element in torch else None for element in ("float32", "bfloat16")}
            rows.append({"head": head, "policy": policy_name(line), "ms": line["milliseconds"],
                         "bytes_share": line["bytes_share"], "error": line["error_median"],
                         **ratios})
    return rows


def hnswlib_seconds(rows):
    """Seconds times threads of the cheapest index that hnswlib built, or None."""
    return min((row["build_seconds"] * row["build_threads"] for row in rows
                if row["peer"].startswith("hnswlib")
                and row["build"]["expansion"] == HNSW_EXPANSION), default=None)


def build_ratios(results):
    """Seconds of a core for a million keys of the heads that hnswlib was measured on."""
    rows = []
    for head in sorted(results.attic.keys() & results.peers.keys()):
        seconds = hnswlib_seconds(results.peers[head])
        if seconds is not None:
            ours = results.attic[head][0]["build_seconds"]
            millions = results.tokens / 1e6
            rows.append({"head": head, "attic": ours / millions, "hnswlib": seconds / millions,
                         "ratio": seconds / ours})
    return rows


def same_heads(small, large):
    """(head of the small set, head of the large one), where Attic was measured on both."""
    plan = PLANS.get(large.name)
    known = plan.smaller_heads if plan else ()
    pairs = [(known[head] if known else head, head) for head in sorted(large.attic)
             if not known or head < len(known)]
    return [pair for pair in pairs if pair[0] in small.attic]


def growth(all_results):
    """Least milliseconds at a median error, of sets that were measured at both sizes.

    Medians over the heads that reach the error at both sizes; so is the ratio.
    """
    sizes = {}
    for results in all_results:
        sizes.setdefault(results.name.rsplit("-", 1)[0], {})[results.tokens] = results
    rows = []
    for name, found in sizes.items():
        small = next((found[tokens] for tokens in SMALL if tokens in found), None)
        large = found.get(LARGE)
        for error in ERRORS if small and large else ():
            lines = [(fastest(small, ours, error), fastest(large, theirs, error))
                     for ours, theirs in same_heads(small, large)]
            ms = [tuple(line["milliseconds"] for line in pair) for pair in lines
                  if None not in pair]
            if ms:
                rows.append({"name": name, "error": error, "heads": len(ms),
                             "tokens": [small.tokens, large.tokens],
                             "ms": [median(column) for column in zip(*ms)],
                             "ratio": median(after / before for before, after in ms)})
    return rows
