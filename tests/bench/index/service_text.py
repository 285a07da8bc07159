"""The report's tables on building, growth, appends and needles, and beside PyTorch."""

from text_table import number, percent, table


def build_lines(sets):
    return table(["core-seconds per million keys", "Attic", "hnswlib", "ratio"], [
        [f"{name}, head {row['head']}", number(row["attic"]), number(row["hnswlib"]),
         number(row["ratio"])] for name, found in sets.items() for row in found["build"]])


def torch_lines(sets):
    titles = ["fastest of median error up to 0.05", "policy", "ms", "bytes", "its error",
              "PyTorch float32 / it", "bfloat16 / it"]
    return table(titles, [
        [f"{name}, head {row['head']}", row["policy"], number(row["ms"]),
         percent(row["bytes_share"]), number(row["error"]), number(row["float32_ratio"]),
         number(row["bfloat16_ratio"])] for name, found in sets.items() for row in found["torch"]])


def growth_lines(rows):
    return table(["milliseconds", "median error up to", "keys", "ms", "keys", "ms", "ratio",
                  "heads"], [
        [row["name"], number(row["error"]), str(row["tokens"][0]), number(row["ms"][0]),
         str(row["tokens"][1]), number(row["ms"][1]), number(row["ratio"]), str(row["heads"])]
        for row in rows])


def append_lines(sets):
    titles = ["milliseconds", "rest p50", "p99", "beside p50", "p99", "ratio p50", "p99",
              "processor", "full tail", "core", "samples", "tokens/s"]
    return table(titles, [
        [f"{name}, head {head}", number(row["rest"]["p50_ms"]), number(row["rest"]["p99_ms"]),
         number(row["beside"]["p50_ms"]), number(row["beside"]["p99_ms"]),
         number(row["ratio_p50"]), number(row["ratio_p99"]), number(row["ratio_p99_processor"]),
         number(row["ratio_p99_full_tail"]),
         percent(row["beside"]["processor_share"], 0),
         str(row["beside"]["samples"]),
         number(row["appended_tokens_per_second"])]
        for name, found in sets.items() for head, row in found["appends"].items()])


def needle_lines(reports):
    """One table for each run of needle_bench."""
    if not reports:
        yield "not measured"
    for found in reports:
        scan = "scans where better" if found["exact_when_better"] else "always walks"
        yield (f"{found['tokens']} keys of {found['head_dim']}, seed {found['seed']}, "
               f"{found['asked']} questions, {found['distractors']} distractors each; needles "
               f"weigh {percent(found['needle_weight_min'], 0)} to "
               f"{percent(found['needle_weight_max'], 0)}")
        yield from table([scan, "found", "read exactly", "error < 0.05", "99% of errors", "bytes",
                          "worst", "ms", "exact scan / it"], [
            [f"{row['policy']} {row['amount']:g}" if row["amount"] else row["policy"],
             percent(row["found_share"], 2), percent(row["attended_share"], 2),
             percent(row["close_share"], 2), number(row["error_p99"]),
             percent(row["bytes_share"]), percent(row["bytes_share_worst"]),
             number(row["milliseconds"]), number(row["exact_over_time"])]
            for row in found["policies"]])
        yield ""
