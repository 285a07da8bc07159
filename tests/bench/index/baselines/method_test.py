"""The choice of settings: the best on training queries, and never worse for a larger budget.

    python -m pytest tests/bench/index/baselines
"""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent.parent))

from baselines.attention import exact_attention  # noqa: E402
from baselines.made_up import made_up_head  # noqa: E402
from baselines.method import Answer, Baseline  # noqa: E402

SEED = 7


class Scaled(Baseline):
    """Answers with 1 + setting times the exact output: the setting is the relative error."""

    name = "scaled"
    offered = {0.1: [0.5, 0.2, 0.4], 0.2: [0.3, 0.6], 0.3: [0.1, 0.7], 0.4: [0.9], 0.5: []}

    def settings(self, budget):
        yield from self.offered[budget]

    def answer(self, queries, setting):
        head = self.head
        exact = exact_attention(head.keys, head.values, queries, head.logit_scale)
        return Answer((1 + setting) * exact, 0)


@pytest.fixture(scope="module")
def method():
    print(f"seed {SEED}")
    keys, values, training, _ = made_up_head(256, 8, 2, seed=SEED)
    return Scaled().build(keys, values, training, 2, 8**-0.5)


def test_the_least_error_is_chosen(method):
    method.tune([0.1])
    assert method.setting(0.1) == 0.2


def test_a_larger_budget_may_keep_what_a_smaller_one_chose(method):
    method.tune([0.3, 0.2, 0.1])
    assert [method.setting(budget) for budget in (0.1, 0.2, 0.3)] == [0.2, 0.2, 0.1]


def test_without_a_choice_nothing_is_measured(method):
    method.tune([0.1, 0.4])
    assert method.setting(0.4) == 0.9  # the only one it has


def test_a_budget_without_settings_has_none():
    keys, values, training, _ = made_up_head(256, 8, 2, seed=SEED)
    method = Scaled().build(keys, values, training, 2, 8**-0.5)
    assert method.setting(0.5) is None
