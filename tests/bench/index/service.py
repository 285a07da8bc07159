"""The arithmetic of the report: promises, search beside libraries, memory and times."""

from statistics import mean, median

RECALLS = (0.9, 0.95, 0.99)
SEARCH_NAMES = {"clustered": "Attic, clusters", "query-aware graph": "Attic, graph"}


def promises(results):
    """How far max_error and coverage kept what was asked, over all heads of a set."""
    errors, coverage = [], []
    by_amount = {}
    for head in results.attic:
        for policy in ("max_error", "coverage"):
            for line in results.lines(head, policy):
                by_amount.setdefault((policy, line["amount"]), []).append((head, line))
    for (policy, amount), found in by_amount.items():
        lines = [line for _, line in found]
        common = {"asked": amount, "heads": len(lines),
                  "bytes_share": median(line["bytes_share"] for line in lines)}
        if policy == "max_error":
            worst_head, worst = max(found, key=lambda pair: pair[1]["errors_above_asked"])
            errors.append({**common, "median": median(line["error_median"] for line in lines),
                           "above": mean(line["errors_above_asked"] for line in lines),
                           "above_worst": worst["errors_above_asked"], "worst_head": worst_head})
        else:
            worst_head, worst = min(found, key=lambda pair: pair[1]["coverage_true"])
            coverage.append({**common, "true": mean(line["coverage_true"] for line in lines),
                             "p01": mean(line["coverage_true_p01"] for line in lines),
                             "true_worst": worst["coverage_true"], "worst_head": worst_head,
                             "p01_worst": min(line["coverage_true_p01"] for line in lines)})
    return {"max_error": errors, "coverage": coverage}


def best_of_peer(points):
    """The least milliseconds at each of RECALLS, None where it was not reached."""
    return [min((ms for recall, ms in points if recall >= wanted), default=None)
            for wanted in RECALLS]


def search_points(results):
    """Name: head: (recall, ms) of every setting; one thread and one query at a time.

    Attic's are of the heads that the peers were measured on.
    """
    points = {}
    for head, rows in results.peers.items():
        for row in rows:
            if row["threads"] == 1:
                points.setdefault(row["peer"], {}).setdefault(head, []).append(
                    (row["recall"], row["ms"]))
    for head, rows in results.search.items():
        for row in rows if head in results.peers else ():
            if row["index"] in SEARCH_NAMES and row["recall"] is not None:
                points.setdefault(SEARCH_NAMES[row["index"]], {}).setdefault(head, []).append(
                    (row["recall"], row["query_ms"]))
    return points


def build_seconds(results):
    """Name: seconds times threads to build the cheapest index of each name, median over heads."""
    seconds = {}
    for head, rows in results.peers.items():
        for row in rows:
            seconds.setdefault(row["peer"], {}).setdefault(head, []).append(
                row["build_seconds"] * row["build_threads"])
    for head, rows in results.search.items():
        for row in rows:
            if row["index"] in SEARCH_NAMES:
                seconds.setdefault(SEARCH_NAMES[row["index"]], {}).setdefault(head, []).append(
                    row["build_seconds"])
    return {name: median(min(found) for found in heads.values())
            for name, heads in seconds.items()}


def search_table(results):
    """Rows of peers: milliseconds at each recall, median over heads; None where one missed it."""
    seconds = build_seconds(results)
    rows = []
    for name, heads in search_points(results).items():
        found = [best_of_peer(points) for points in heads.values()]
        rows.append({"name": name, "heads": len(heads), "build_core_seconds": seconds[name],
                     "ms": {str(recall): None if None in column else median(column)
                            for recall, column in zip(RECALLS, zip(*found))}})
    return sorted(rows, key=lambda row: row["ms"]["0.95"] or float("inf"))


def memory(results):
    """What the index keeps beside keys and values, as shares of those, and the time to build."""
    heads = [lines[0] for lines in results.attic.values()]
    shares = {name: median(head[f"{name}_share"] for head in heads)
              for name in ("summaries", "codes", "graph")}
    return {"heads": len(heads), **shares, "all": sum(shares.values()),
            "build_seconds_per_million": median(
                head["build_seconds"] * 1e6 / head["tokens"] for head in heads)}


def milliseconds(results):
    """Exact attention and the default of Attic, median over heads."""
    exact = [lines[0]["milliseconds"] for lines in results.attic.values()]
    default = [results.lines(head, "default")[0]["milliseconds"] for head in results.attic
               if results.lines(head, "default")]
    found = {"exact": median(exact), "default": median(default) if default else None}
    for asked in (0.2, 0.1, 0.05, 0.02, 0.01):
        times = [line["milliseconds"] for head in results.attic
                 for line in results.lines(head, "max_error") if line["amount"] == asked]
        found[f"max_error {asked:g}"] = median(times) if times else None
    return found


def exact_attention(results):
    """PyTorch beside Attic on the same head, one thread each."""
    rows = []
    for head, found in sorted(results.attention.items()):
        if head in results.attic:
            torch = {row["element"]: row["ms"] for row in found if row["threads"] == 1}
            default = results.lines(head, "default")
            rows.append({"head": head, "torch_float32": torch.get("float32"),
                         "torch_bfloat16": torch.get("bfloat16"),
                         "attic_exact": results.attic[head][0]["milliseconds"],
                         "attic_default": default[0]["milliseconds"] if default else None,
                         "default_error": default[0]["error_median"] if default else None})
    return rows
