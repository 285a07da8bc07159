"""MagicPIG's estimate against its formula, against exact sums, and its bytes.

    python -m pytest tests/bench/index/baselines
"""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent.parent))

from baselines.head import Head  # noqa: E402
from baselines.magic_pig import MagicPig, Setting, sampling_probability  # noqa: E402
from baselines.made_up import made_up_head  # noqa: E402

SEED = 3
SCALE = 16**-0.5


def test_sampling_probability():
    p, bits, tables = 2 / 3, 3, 5  # an angle of 60 degrees
    expected = 1 - (1 - p**bits)**tables - tables * p**bits * (1 - p**bits)**(tables - 1)
    found = sampling_probability(torch.tensor([0.5]), bits, tables)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=1e-6,
                               atol=0)


def test_the_sums_are_unbiased():
    """Mean of 400 draws of the hashes: within four standard errors of exact sums."""
    print(f"seeds 0 to 399, head {SEED}")
    keys, values, training, questions = made_up_head(256, 16, 1, questions=1, seed=SEED)
    head = Head.of(keys, values + 1, training, 1, SCALE)
    queries = torch.from_numpy(questions)
    draws = []
    for seed in range(400):
        method = MagicPig(seed, tables_max={4: 12}).use(head)
        total, _ = method.sums(queries, Setting(4, 12))
        scale = total.largest.exp()
        draws.append(torch.cat([total.denominator * scale, total.numerator * scale], dim=1))
    draws = torch.cat(draws)
    weights = torch.exp(queries.double() @ head.keys.double().T * head.logit_scale)
    exact = torch.cat([weights.sum(dim=1, keepdim=True), weights @ head.values.double()], dim=1)
    standard_error = draws.std(dim=0) / len(draws)**0.5
    assert float(((draws.mean(dim=0) - exact[0]) / standard_error).abs().max()) < 4


def test_buckets_and_rows_are_counted():
    keys, values, training, questions = made_up_head(512, 16, 2, questions=1, seed=SEED)
    queries = torch.from_numpy(questions)
    method = MagicPig(SEED, tables_max={4: 12}).build(keys, values, training, 2, SCALE)
    tables = method._tables[4]
    entries = [tables.bucket_ids(query) for query in queries]
    sampled = set()
    for buckets in entries:
        ids, met = np.unique(torch.cat(buckets).numpy(), return_counts=True)
        sampled |= set(ids[met >= 2])
    expected = len(sampled) * 64 + 4 * sum(len(b) for bs in entries for b in bs) + 4 * 2 * 12 * 2
    assert method.answer(queries, Setting(4, 12)).bytes_read == expected
