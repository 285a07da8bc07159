"""The libraries find what an exact scan finds, and a measurement reports all that it should.

    python -m pytest tests/bench/index/peers
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

for module in ("faiss", "hnswlib", "torch", "usearch"):
    pytest.importorskip(module)
sys.path.insert(0, str(Path(__file__).parent.parent))

from baselines.made_up import made_up_head, write_made_up_set  # noqa: E402
from peers import measure, torch_attention  # noqa: E402
from peers.faiss_libraries import Flat, Hnsw, IvfFastScan, IvfFlat  # noqa: E402
from peers.graph_libraries import Hnswlib, Usearch  # noqa: E402
from peers.library import NEIGHBORS, augmented, powers  # noqa: E402
from peers.timing import call_ms  # noqa: E402

SEED, TOKENS, DIM = 5, 4096, 16
LIBRARIES = [(Flat(), 1.0), (IvfFlat(16), 0.95), (IvfFastScan(16), 0.9), (Hnsw(16), 0.95),
             (Hnswlib("l2"), 0.95), (Hnswlib("ip"), 0.95), (Usearch("f32"), 0.95),
             (Usearch("bf16"), 0.9), (Usearch("i8"), 0.7)]


@pytest.fixture(scope="module")
def vectors():
    print(f"seed {SEED}")
    keys, _, _, questions = made_up_head(TOKENS, DIM, 1, questions=16, seed=SEED)
    keys = np.ascontiguousarray(keys - keys.mean(axis=0))
    return keys, list(questions), measure.exact_neighbors(keys, questions)


@pytest.mark.parametrize("library, enough", LIBRARIES, ids=lambda value: getattr(value, "name", ""))
def test_the_last_of_a_sweep_finds_enough(vectors, library, enough):
    keys, queries, expected = vectors
    rows = list(measure.measure_library(library, keys, queries, expected, [1], passes=1))
    assert rows[-1]["recall"] >= enough
    assert all(row["ms"] > 0 and row["build_seconds"] > 0 for row in rows)
    counted = [row["read_bytes"] for row in rows if row["read_bytes"] is not None]
    if not isinstance(library, Hnswlib):
        assert len(counted) == len(rows) and min(counted) > 0


def test_a_flat_scan_reads_all_keys(vectors):
    keys, queries, _ = vectors
    flat = Flat()
    flat.build(keys, 1)
    assert flat.read_bytes(queries) == TOKENS * DIM * 4


def test_all_lists_probed_are_all_keys(vectors):
    keys, queries, _ = vectors
    library = IvfFlat(16)
    library.build(keys, 1)
    library.set_search({"probes": 16}, 1)
    assert library.read_bytes(queries) == 16 * DIM * 4 + TOKENS * (DIM * 4 + 8)


def test_augmented_keys_rank_by_inner_product(vectors):
    keys, queries, expected = vectors
    rows = augmented(keys)
    distances = ((rows - np.append(queries[0], 0)) ** 2).sum(axis=1)
    nearest = set(np.argsort(distances)[:NEIGHBORS].tolist())
    assert len(nearest & expected[0]) >= NEIGHBORS - 1  # float32 may swap the last one


def test_powers_end_with_the_last():
    assert list(powers(1, 8)) == [1, 2, 4, 8]
    assert list(powers(100, 350)) == [100, 200, 350]


def test_time_is_of_the_median_call():
    calls = []
    assert call_ms(calls.append, [1, 2, 3], passes=2) < 1
    assert calls == [1, 2, 3] * 3


def test_attention_and_libraries_are_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "all_libraries", lambda tokens: iter([Flat(), IvfFlat(16)]))
    monkeypatch.setattr(torch_attention, "READ_BYTES", 1 << 20)
    write_made_up_set(tmp_path / "set", heads=2, group=2, tokens=TOKENS, dim=DIM)
    out = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["measure", str(tmp_path / "set"), "--out", str(out),
                                      "--threads", "1", "--questions", "2", "--passes", "1"])
    measure.main()
    report = json.loads(out.read_text())
    assert {row["head"] for row in report["rows"]} == {0, 1}
    assert {row["peer"] for row in report["rows"]} == {"faiss Flat", "faiss IVF-Flat"}
    attention = {(row["kv_heads"], row["element"]): row for row in report["attention"]}
    assert set(attention) == {(n, t) for n in (1, 2) for t in ("float32", "bfloat16")}
    assert attention[2, "float32"]["read_bytes"] == 2 * 2 * TOKENS * DIM * 4
    assert {row["what"] for row in report["read_gigabytes_per_second"]} == {
        "torch.sum", "numpy.sum"}
