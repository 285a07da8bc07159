"""Quest (arXiv 2406.10774, algorithm 1): pages of consecutive tokens, ranked by a bound.

A page keeps the smallest and largest number of each key dimension; sum_i max(q_i min_i, q_i max_i)
bounds every logit in it. The best pages are attended exactly, the others dropped. The paper's page
has 16 tokens; its summaries are 1/16 of keys and values, so larger pages may serve small budgets.
"""

from dataclasses import dataclass

import torch

from .head import ELEMENT_BYTES
from .method import Answer, Baseline, group_scores

PAGE_TOKENS = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Setting:
    page_tokens: int
    pages: int


class Quest(Baseline):
    name = "Quest"

    def prepare(self):
        self._bounds = {}
        for size in PAGE_TOKENS:
            pages = self.head.keys.split(size)
            self._bounds[size] = (torch.stack([page.amin(dim=0) for page in pages]),
                                  torch.stack([page.amax(dim=0) for page in pages]))

    def summary_bytes(self, page_tokens):
        smallest, largest = self._bounds[page_tokens]
        return (smallest.numel() + largest.numel()) * ELEMENT_BYTES

    def settings(self, budget):
        for size in PAGE_TOKENS:
            spare = budget * self.head.all_bytes - self.summary_bytes(size)
            pages = min(int(spare / (size * self.head.row_bytes)), len(self._bounds[size][0]))
            if spare > 0 and pages > 0:
                yield Setting(size, pages)

    def answer(self, queries, setting):
        size = setting.page_tokens
        ranking = self.last.get(queries, size, lambda: self._ranking(queries, size))
        rows = (ranking[:setting.pages, None] * size + torch.arange(size)).flatten()
        rows = rows[rows < self.head.tokens]  # the last page may be shorter
        total = self.head.new_sum(queries)
        self.head.attend_rows(total, queries, rows)
        return Answer(total.output(), self.summary_bytes(size) + len(rows) * self.head.row_bytes)

    def _ranking(self, queries, size):
        smallest, largest = self._bounds[size]
        bounds = queries.clamp(max=0) @ smallest.T + queries.clamp(min=0) @ largest.T
        return group_scores(bounds * self.head.logit_scale).argsort(descending=True)
