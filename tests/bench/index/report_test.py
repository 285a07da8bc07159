"""The arithmetic and the text of the report, on made-up results."""

import json

import comparison
import pytest
import ratios
import report
import service
from report_text import render
from results import SetResults, read_all, read_needles
from text_table import number, table

MACHINE = {"date": "2026-01-01 00:00 UTC", "commit": "abc", "cpu": "made up", "cores": 2,
           "memory_gib": 8}


def exact_line(tokens=1000, ms=2.0):
    return {"policy": "exact", "tokens": tokens, "milliseconds": ms, "build_seconds": 0.5,
            "summaries_share": 0.1, "codes_share": 0.2, "graph_share": 0.0}


def line(policy, amount, bytes_share, error, **more):
    return {"policy": policy, "amount": amount, "bytes_share": bytes_share,
            "error_median": error, "milliseconds": 1.0, "errors_above_asked": 0.0,
            "coverage_true": 0.9, "coverage_true_p01": 0.8, **more}


def row(head, method, budget, bytes_share, error):
    return {"head": head, "method": method, "budget": budget, "published": budget is None,
            "bytes_share": bytes_share, "error": error and {"median": error}}


@pytest.fixture
def root(tmp_path):
    """Two heads of one set, the second one without a peer."""
    folder = tmp_path / "made-up-1000"
    folder.mkdir()
    for head, error in ((0, 0.1), (1, 0.4)):
        lines = [exact_line(), line("default", 0, 0.1, 0.05),
                 line("token_budget", 50, 0.0505, error), line("token_budget", 80, 0.08, 0.01),
                 line("max_error", 0.2, 0.03, 0.1, errors_above_asked=0.1 * head),
                 line("coverage", 0.9, 0.2, 0.01, coverage_true=0.95 - 0.1 * head)]
        (folder / f"attic_{head}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    rows = [row(0, "A", 0.05, 0.05, 0.2), row(0, "top-k (oracle)", 0.05, 0.05, 0.05),
            row(0, "A", 0.01, None, None), row(0, "B", None, 0.06, 0.3),
            row(1, "A", 0.05, 0.0515, 0.1), row(1, "B", 0.05, 0.05, 0.2)]
    baselines = {"rows": rows, "question_groups": 4, "hindsight": False}
    (folder / "baselines.json").write_text(json.dumps(baselines))
    (folder / "baselines_9.json.part").write_text("{")
    settings = [(1, 0.8, 1.0), (1, 0.96, 3.0), (1, 0.97, 2.0), (2, 1.0, 0.1)]
    peers = {"question_groups": 4, "attention": [
        {"element": "float32", "kv_heads": 1, "threads": 1, "ms": 5.0},
        {"element": "float32", "kv_heads": 2, "threads": 1, "ms": 9.0}], "rows": [
        {"head": 0, "peer": "P", "threads": threads, "recall": recall, "ms": ms,
         "build_seconds": 3.0, "build_threads": 2} for threads, recall, ms in settings]}
    peers["rows"] += [
        {"head": 0, "peer": f"hnswlib, {kind}", "threads": 1, "recall": 0.5, "ms": 1.0,
         "build": {"expansion": expansion}, "build_seconds": seconds, "build_threads": 2}
        for kind, expansion, seconds in (("a", 200, 9.0), ("b", 200, 8.0), ("b", 100, 1.0))]
    (folder / "peers_0.json").write_text(json.dumps(peers))
    latency = {"p50_ms": 1.0, "p99_ms": 2.0, "samples": 10, "processor_share": 0.9}
    append = {"rest": latency, "beside": latency, "ratio_p50": 1.0, "ratio_p99": 1.125,
              "ratio_p99_processor": 1.25,
              "ratio_p99_full_tail": 1.0, "appended_tokens_per_second": 5.0}
    (folder / "append_1.json").write_text(json.dumps(append))
    policy = {"policy": "max_error", "amount": 0.05, "found_share": 0.9961, "attended_share": 1.0,
              "close_share": 0.9961, "error_p99": 0.04, "bytes_share": 0.04,
              "bytes_share_worst": 0.06, "milliseconds": 1.0, "exact_over_time": 2.0}
    needles = {"tokens": 1000, "head_dim": 64, "seed": 3, "asked": 256, "distractors": 8,
               "needle_weight_min": 0.6, "needle_weight_max": 0.9, "exact_when_better": False,
               "policies": [policy]}
    (tmp_path / "needles_walk.json").write_text(json.dumps(needles))
    (tmp_path / "plots").mkdir()
    return tmp_path


@pytest.fixture
def results(root):
    [found] = read_all(root)
    return found


def test_a_point_counts_at_a_budget_with_a_little_slack():
    points = [comparison.Point(0.0101, 0.5, "A"), comparison.Point(0.0103, 0.1, "B")]
    assert comparison.best(points, 0.01).method == "A"
    assert comparison.best(points, 0.0101).method == "B"
    assert comparison.best(points, 0.0101, slack=1).method == "A"
    assert comparison.best(points, 0.005) is None and comparison.asked(points, 0.005) is None


def test_attic_is_taken_at_its_word():
    points = [comparison.Point(0.03, 0.1, "Attic"), comparison.Point(0.05, 0.2, "Attic")]
    assert comparison.asked(points, 0.05).error == 0.2
    assert comparison.best(points, 0.05).error == 0.1


def test_errors_within_rounding_are_equal():
    assert comparison.ratio(0, 1e-15) == comparison.ratio(1e-15, 0) == 1
    assert comparison.ratio(1e-3, 1e-15) == pytest.approx(10)


def test_frontier_compares_head_by_head(results):
    none, at_5, at_8 = comparison.frontier(results, results.baselines, (0.01, 0.05, 0.08))
    assert none == {"budget": 0.01, "all": None, "without_oracles": None}
    # At 5%, A reads too much on head 1: Attic 0.1 and 0.4 beside 0.05 (oracle) and 0.2 (B).
    assert at_5["all"]["ratio_median"] == pytest.approx(2)
    assert at_5["all"]["heads_at_or_below"] == 0
    assert at_5["all"]["attic"] == pytest.approx(0.25)
    assert at_5["without_oracles"]["ratio_median"] == pytest.approx((0.5 + 2) / 2)
    assert at_5["without_oracles"]["ratio_worst"] == pytest.approx(2)
    assert at_5["without_oracles"]["heads_at_or_below"] == 1
    assert at_5["without_oracles"]["methods"] == [("A", 1), ("B", 1)]
    assert at_8["all"]["heads_at_or_below"] == 2


def test_a_published_setting_is_met_with_no_more_bytes(results):
    [found] = comparison.published_settings(results, results.baselines)
    assert (found["method"], found["heads"], found["bytes_share"]) == ("B", 1, 0.06)
    assert found["ratio_median"] == pytest.approx(0.1 / 0.3)


def test_promises_name_the_worst_head(results):
    found = service.promises(results)
    [error], [coverage] = found["max_error"], found["coverage"]
    assert (error["above"], error["above_worst"], error["worst_head"]) == (0.05, 0.1, 1)
    assert coverage["true"] == pytest.approx(0.9)
    assert (coverage["true_worst"], coverage["worst_head"]) == (pytest.approx(0.85), 1)


def test_search_takes_the_fastest_setting_on_one_thread(results):
    [found] = [row for row in service.search_table(results) if row["name"] == "P"]
    assert found["ms"] == {"0.9": 2.0, "0.95": 2.0, "0.99": None}
    assert found["build_core_seconds"] == 6


def test_memory_and_times(results):
    memory = service.memory(results)
    assert memory["all"] == pytest.approx(0.3)
    assert memory["build_seconds_per_million"] == pytest.approx(500)
    [times] = service.exact_attention(results)
    assert (times["head"], times["torch_float32"], times["torch_bfloat16"]) == (0, 5.0, None)
    assert (times["attic_exact"], times["attic_default"]) == (2.0, 1.0)


def test_the_fastest_policy_beside_pytorch(results):
    results.attic[0] += [line("coverage", 0.5, 0.15, 0.04, milliseconds=0.5),
                         line("top_k", 100, 0.15, 0.06, milliseconds=0.25)]
    [found] = ratios.torch_ratios(results)
    assert (found["head"], found["policy"], found["ms"]) == (0, "coverage 0.5", 0.5)
    assert (found["bytes_share"], found["error"]) == (0.15, 0.04)
    assert (found["float32_ratio"], found["bfloat16_ratio"]) == (10, None)


def test_building_beside_the_cheapest_index_of_hnswlib(results):
    [found] = ratios.build_ratios(results)
    assert found == {"head": 0, "attic": pytest.approx(500), "hnswlib": pytest.approx(16000),
                     "ratio": pytest.approx(32)}


def grown(name, tokens, heads):
    """Results whose heads have lines of these (error, milliseconds)."""
    return SetResults(name, {
        head: [exact_line(tokens), *(line("max_error", 0.1, 0.1, error, milliseconds=ms)
                                     for error, ms in lines)] for head, lines in heads.items()})


def test_growth_compares_the_same_heads():
    small = grown("encoder-114688", 114688, {2: [(0.04, 2.0), (0.08, 1.0)], 3: [(0.01, 99.0)],
                                             8: [(0.2, 1.0)]})
    large = grown("encoder-1048576", 1048576, {0: [(0.05, 6.0), (0.1, 4.0)], 1: [(0.01, 5.0)]})
    alone = grown("other-1048576", 1048576, {0: [(0.01, 1.0)]})
    first, second = ratios.growth([small, large, alone])
    assert (first["name"], first["error"], first["heads"]) == ("encoder", 0.05, 1)
    assert (first["ms"], first["ratio"]) == ([2.0, 6.0], 3)
    assert (second["error"], second["ms"], second["ratio"]) == (0.1, [1.0, 4.0], 4)


def test_growth_takes_heads_by_number_where_no_plan_says_otherwise():
    small = grown("x-131072", 131072, {0: [(0.01, 2.0)], 1: [(0.01, 4.0)]})
    large = grown("x-1048576", 1048576, {0: [(0.01, 4.0)], 1: [(0.01, 16.0)]})
    found = ratios.growth([small, large])[0]
    assert (found["heads"], found["ms"], found["ratio"]) == (2, [3.0, 10.0], 3)
    assert found["tokens"] == [131072, 1048576]


def test_the_report_is_written(root):
    collected = report.collect(read_all(root), MACHINE, read_needles(root))
    json.dumps(collected)
    text = "\n".join(render(collected))
    assert "made-up-1000" in text and "top-k (oracle) +1" in text
    assert "made-up-1000, head 1" in text and "1.12" in text
    assert "always walks" in text and "99.61%" in text
    assert max(map(len, text.splitlines())) <= 120


def test_numbers_and_tables():
    assert [number(x) for x in (None, 0, 0.00001234, 0.1234, 1234567.0)] == [
        "-", "0", "0.000012", "0.123", "1234567"]
    assert table(["a", "b"], [["x", "10"]]) == ["a   b", "-----", "x  10"]
