"""The report as text: tables of what report.collect() found."""

from service_text import append_lines, build_lines, growth_lines, needle_lines, torch_lines
from text_table import number, percent, table

HINDSIGHT = "settings of the baselines chosen on the questions themselves, in hindsight"
TRAINING = "settings of the baselines chosen on training queries"


def methods(found):
    """The method that was the best on most heads; how many others were best elsewhere."""
    if len(found) == 1:
        return found[0][0]
    return f"{found[0][0]} +{len(found) - 1}"


def compared_cells(line, with_errors=True):
    if line is None:
        return ["-"] * (6 if with_errors else 2)
    heads = f"{line['heads_at_or_below']} of {line['heads']}"
    if not with_errors:
        return [number(line["ratio_median"]), heads]
    return [number(line["attic"]), number(line["baseline"]), methods(line["methods"]),
            number(line["ratio_median"]), number(line["ratio_worst"]), heads]


def frontier_lines(lines):
    titles = ["bytes", "Attic", "best", "method", "ratio", "worst", "heads",
              "without oracles", "heads"]
    return table(titles, [
        [percent(line["budget"], 0), *compared_cells(line["all"]),
         *compared_cells(line["without_oracles"], with_errors=False)] for line in lines])


def published_lines(lines):
    titles = ["published setting of", "bytes", "Attic", "its error", "ratio", "worst", "heads"]
    rows = []
    for line in lines:
        cells = compared_cells(line)
        rows.append([line["method"], percent(line["bytes_share"]), *cells[:2], *cells[3:]])
    return table(titles, rows)


def accuracy(name, found):
    yield f"{name}: {TRAINING}, {found['question_groups']['baselines']} groups of questions"
    yield from frontier_lines(found["frontier"])
    if found["published"]:
        yield ""
        yield from published_lines(found["published"])
    if found["frontier_hindsight"]:
        yield ""
        yield f"{name}: {HINDSIGHT}"
        yield from frontier_lines(found["frontier_hindsight"])
    yield ""


def promise_lines(sets):
    rows = [[name, number(line["asked"]), number(line["median"]), percent(line["bytes_share"]),
             percent(line["above"], 2), f"{percent(line['above_worst'], 2)} ({line['worst_head']})"]
            for name, found in sets.items() for line in found["promises"]["max_error"]]
    yield from table(["max_error", "asked", "median error", "bytes", "answers above it",
                      "worst head"], rows)
    yield ""
    rows = [[name, number(line["asked"]), number(line["true"]), number(line["p01"]),
             percent(line["bytes_share"]), f"{number(line['true_worst'])} ({line['worst_head']})",
             number(line["p01_worst"])]
            for name, found in sets.items() for line in found["promises"]["coverage"]]
    yield from table(["coverage", "asked", "true, mean", "1st percentile", "bytes",
                      "worst head's mean", "worst 1st percentile"], rows)


def search_lines(name, rows):
    if not rows:
        yield f"{name}: not measured"
    else:
        recalls = list(rows[0]["ms"])
        titles = [name, *(f"ms at {recall}" for recall in recalls), "core-seconds to build",
                  "heads"]
        yield from table(titles, [
            [row["name"], *(number(row["ms"][recall]) for recall in recalls),
             number(row["build_core_seconds"]), str(row["heads"])] for row in rows])
    yield ""


def memory_lines(sets):
    return table(["set", "summaries", "codes", "graph", "together", "s per million tokens"], [
        [name, *(percent(found["memory"][part]) for part in ("summaries", "codes", "graph",
                                                             "all")),
         number(found["memory"]["build_seconds_per_million"])] for name, found in sets.items()])


def time_lines(sets):
    yield from table(["milliseconds", "exact", "default", "max_error 0.2", "0.1", "0.02", "0.01"], [
        [name, *(number(found["milliseconds"][key]) for key in (
            "exact", "default", "max_error 0.2", "max_error 0.1", "max_error 0.02",
            "max_error 0.01"))] for name, found in sets.items()])
    rows = [[f"{name}, head {row['head']}", *(number(row[key]) for key in (
        "torch_float32", "torch_bfloat16", "attic_exact", "attic_default", "default_error"))]
        for name, found in sets.items() for row in found["exact_attention"]]
    yield ""
    yield from table(["milliseconds, one thread", "PyTorch float32", "bfloat16", "Attic exact",
                      "default", "its error"], rows)


def render(report):
    """The whole report."""
    machine, sets = report["machine"], report["sets"]
    yield (f"Index benchmark, {machine['date']}, commit {machine['commit']}\n{machine['cpu']}, "
           f"{machine['cores']} cores, {machine['memory_gib']} GiB")
    yield "\n1. Output error against bytes read\n"
    yield report["notes"]["frontier"]
    yield ""
    for name, found in sets.items():
        if found["frontier"]:
            yield from accuracy(name, found)
        else:
            yield f"{name}: baselines were not measured\n"
    yield "2. Promises\n"
    yield from promise_lines(sets)
    yield "\n3. Recall@100 against time\n"
    yield report["notes"]["search"]
    yield ""
    for name, found in sets.items():
        yield from search_lines(name, found["search"])
    yield "4. Memory beside keys and values, and building\n"
    yield from memory_lines(sets)
    yield ""
    yield report["notes"]["build"]
    yield ""
    yield from build_lines(sets)
    yield "\n5. Time of attention\n"
    yield report["notes"]["time"]
    yield ""
    yield from time_lines(sets)
    yield ""
    yield from torch_lines(sets)
    yield ""
    yield report["notes"]["growth"]
    yield ""
    yield from growth_lines(report["growth"])
    yield "\n6. Searches beside appends\n"
    yield report["notes"]["appends"]
    yield ""
    yield from append_lines(sets)
    yield "\n7. Needles\n"
    yield report["notes"]["needles"]
    yield ""
    yield from needle_lines(report["needles"])
