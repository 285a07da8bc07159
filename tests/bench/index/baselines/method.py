"""The interface of all baselines, and how they choose a setting for a budget.

Bytes are those that a query must read. Numbers of keys, values and summaries are bfloat16; the
query heads of a group share what they read, so that it counts once per kv head. The budget is a
share of the bytes of all keys and values.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch

from .attention import relative_errors
from .head import Head

SETTINGS_KEPT = 4


class Answer(NamedTuple):
    outputs: torch.Tensor  # (group, value_dim)
    bytes_read: float


class LastQuery:
    """Remembers what was computed for the last group of queries: a curve asks it repeatedly."""

    def __init__(self):
        self._queries, self._known = None, {}

    def get(self, queries, key, compute):
        if queries is not self._queries:
            self._queries, self._known = queries, {}
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def group_scores(logits):
    """(n,): softmax of each query head, summed over the group (RetroInfer, arXiv 2505.02922)."""
    return torch.softmax(logits, dim=1).sum(dim=0)


class Baseline(ABC):
    """A method. Training queries choose among settings that fit a budget: least median error."""

    name: str

    def build(self, keys, values, training_queries, group, logit_scale):
        return self.use(Head.of(keys, values, training_queries, group, logit_scale))

    def use(self, head):
        """As build; methods may share a head and its clusters."""
        self.head, self.last, self._chosen = head, LastQuery(), {}
        self.prepare()
        return self

    def attend(self, queries, budget):
        """Queries (group, head_dim) -> (outputs (group, value_dim), bytes read)."""
        setting = self.setting(budget)
        if setting is None:
            raise ValueError(f"{self.name}: its summaries alone are more than {budget:.1%}")
        return self.answer(queries, setting)

    def setting(self, budget):
        """The chosen setting, or None where the budget does not even pay for the summaries."""
        if budget not in self._chosen:
            self.tune([budget])
        return self._chosen[budget]

    def tune(self, budgets):
        """Chooses for all budgets together. After a quarter of the queries the best few remain."""
        candidates = {budget: list(self.settings(budget)) for budget in budgets}
        errors = {}
        first_round = self.head.tuning[::4]
        second_round = [pair for place, pair in enumerate(self.head.tuning) if place % 4]
        for tuning in (first_round, second_round):
            candidates = {budget: self._best(settings, errors)
                          for budget, settings in candidates.items()}
            asked = {s for settings in candidates.values() if len(settings) > 1 for s in settings}
            for queries, exact in tuning if asked else ():
                for setting in asked:
                    found = relative_errors(self.answer(queries, setting).outputs, exact)
                    errors.setdefault(setting, []).append(found)
        cheaper = []  # what a smaller budget chose is open to a larger one too
        for budget in sorted(candidates):
            best = self._best(candidates[budget] + cheaper, errors)
            self._chosen[budget] = next(iter(best), None)
            cheaper = [setting for setting in best[:1] if setting in errors]

    def _best(self, settings, errors):
        """The best few so far; all of them where nothing was measured."""
        if not all(setting in errors for setting in settings):
            return settings
        median = {setting: float(torch.cat(errors[setting]).median()) for setting in settings}
        return sorted(settings, key=median.get)[:SETTINGS_KEPT]

    @property
    def published(self):
        """The setting of the paper, measured besides the budgets; None where there is none."""
        return None

    def prepare(self):
        """Makes the summaries of self.head."""

    @abstractmethod
    def settings(self, budget):
        """The settings whose bytes meet the budget, hashable; none where nothing does."""

    @abstractmethod
    def answer(self, queries, setting):
        """Answer to one group of queries."""
