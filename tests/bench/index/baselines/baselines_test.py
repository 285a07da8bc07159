"""Every baseline is exact when it may read everything, and counts its bytes as said.

    python -m pytest tests/bench/index/baselines
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent.parent))

from baselines import measure, multipole, quest, retro_infer, top_k  # noqa: E402
from baselines.attention import AttentionSum, exact_attention, relative_errors  # noqa: E402
from baselines.head import Head  # noqa: E402
from baselines.made_up import made_up_head, write_made_up_set  # noqa: E402

SEED = 3
TOKENS, DIM, GROUP = 2048, 16, 2
SCALE = DIM**-0.5
ROW_BYTES = 4 * DIM
EVERYTHING = 2.0  # a budget for all keys and values besides all summaries

SELECTING = [top_k.TopK(), top_k.TopK(0.01), retro_infer.RetroInfer(),
             retro_infer.RetroInfer(search_split=True), quest.Quest(), multipole.Multipole()]


@pytest.fixture(scope="module")
def head():
    print(f"seed {SEED}")
    keys, values, training, questions = made_up_head(TOKENS, DIM, GROUP, seed=SEED)
    made = Head.of(keys, values, training, GROUP, SCALE)
    return made, list(torch.from_numpy(questions.reshape(-1, GROUP, DIM)))


def error(head, queries, outputs):
    exact = exact_attention(head.keys, head.values, queries, head.logit_scale)
    return float(relative_errors(outputs, exact).max())


def test_exact_attention_is_softmax_attention(head):
    made, questions = head
    weights = torch.softmax(questions[0].double() @ made.keys.double().T * SCALE, dim=1)
    outputs = exact_attention(made.keys, made.values, questions[0], SCALE)
    torch.testing.assert_close(outputs, weights @ made.values.double())


def test_pieces_sum_up_in_any_order(head):
    made, questions = head
    total = AttentionSum(GROUP, DIM)
    for rows in torch.randperm(TOKENS, generator=torch.Generator().manual_seed(SEED)).split(100):
        made.attend_rows(total, questions[0], rows)
    assert error(made, questions[0], total.output()) < 1e-5


@pytest.mark.parametrize("method", SELECTING, ids=lambda method: method.name)
def test_everything_read_is_exact(head, method):
    made, questions = head
    method.use(made)
    for queries in questions:
        assert error(made, queries, method.attend(queries, EVERYTHING)[0]) < 1e-5


@pytest.mark.parametrize("method", SELECTING, ids=lambda method: method.name)
def test_bytes_stay_within_the_budget_and_more_helps(head, method):
    made, questions = head
    method.use(made)
    errors = []
    for budget in (0.1, 0.25, 0.6):
        answers = [method.attend(queries, budget) for queries in questions]
        assert max(answer.bytes_read for answer in answers) <= budget * made.all_bytes
        errors.append(np.median([error(made, queries, answer.outputs)
                                 for queries, answer in zip(questions, answers)]))
    assert errors[0] > errors[1] > errors[2]


def test_a_budget_below_the_summaries_is_refused(head):
    method = retro_infer.RetroInfer().use(head[0])
    assert method.setting(0.03) is None  # centroids and sizes: 34 of 1,024 bytes of a cluster
    with pytest.raises(ValueError, match="summaries"):
        method.attend(head[1][0], 0.03)


def tiny_head():
    """Four keys at (1, 0) and four at (0, 1), two values a key; the query is on the first."""
    keys = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    queries = np.array([[4.0, 0.0]], dtype=np.float32)
    return Head.of(keys, values, queries, 1, 1.0), torch.from_numpy(queries)


def test_bytes_of_a_tiny_top_k():
    head, queries = tiny_head()  # 8 bytes a row, 64 altogether
    assert top_k.TopK().use(head).attend(queries, 0.5).bytes_read == 4 * 8
    charged = top_k.TopK(visited_share=0.25).use(head)  # 2 keys of 4 bytes visited, 3 rows read
    assert charged.attend(queries, 0.5).bytes_read == 2 * 4 + 3 * 8


def test_bytes_of_tiny_pages(monkeypatch):
    monkeypatch.setattr(quest, "PAGE_TOKENS", (4,))
    head, queries = tiny_head()
    outputs, bytes_read = quest.Quest().use(head).attend(queries, 0.75)
    assert bytes_read == 2 * 2 * 4 + 4 * 8  # two bounds of two pages; one page of four rows
    torch.testing.assert_close(outputs, head.values[:4].mean(dim=0, keepdim=True))


def test_bytes_and_output_of_tiny_zones(monkeypatch):
    monkeypatch.setattr(retro_infer, "PUBLISHED_KEYS", 4)
    head, queries = tiny_head()
    method = retro_infer.RetroInfer().use(head)
    outputs, bytes_read = method.answer(queries, retro_infer.Setting(4, 4, 1))
    assert bytes_read == 2 * (4 + 2) + 4 * 8 + 4  # two centroids and sizes; four rows; a value sum
    assert error(head, queries, outputs) < 1e-6  # the keys of a cluster are equal
    _, bytes_read = method.answer(queries, retro_infer.Setting(4, 3, 0))
    assert bytes_read == 2 * (4 + 2)  # the best cluster has four rows


def test_bytes_and_output_of_a_tiny_multipole(monkeypatch):
    monkeypatch.setattr(multipole, "KEYS_PER_CLUSTER", (4,))
    monkeypatch.setattr(multipole, "FAN_OUTS", (1, 2))
    head, queries = tiny_head()
    method = multipole.Multipole().use(head)
    outputs, bytes_read = method.answer(queries, multipole.Setting(4, 1, 0, 4 * 8))
    assert bytes_read == 2 * (4 + 2) + 4 * 8 + 4
    assert error(head, queries, outputs) < 1e-6
    outputs, bytes_read = method.answer(queries, multipole.Setting(4, 2, 0, 0))
    assert bytes_read == (4 + 2) + 4  # one coarse cluster, not opened
    torch.testing.assert_close(outputs, head.values.mean(dim=0, keepdim=True))


def test_measure_writes_every_method_and_budget(tmp_path, monkeypatch, capsys):
    write_made_up_set(tmp_path / "set", heads=2, tokens=TOKENS, dim=DIM, group=GROUP)
    out = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["measure", str(tmp_path / "set"), "--out", str(out),
                                      "--heads", "1", "--questions", "4"])
    measure.main()
    rows = json.loads(out.read_text())["rows"]
    assert {row["head"] for row in rows} == {1}
    assert len({row["method"] for row in rows}) == 7
    for row in rows:
        if row["error"] and row["budget"]:
            assert 0 <= row["error"]["median"] <= row["error"]["p99"]
    assert "Multipole" in capsys.readouterr().out
