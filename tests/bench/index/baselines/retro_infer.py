"""RetroInfer (arXiv 2505.02922, equations 2 to 4): clusters in three zones.

All centroids are scanned. The best clusters are attended exactly (retrieval zone), the next ones
estimated from centroid, size and value sum (estimation zone), the others dropped. Published: 16
keys a cluster, 1.8% retrieved, 23.2% estimated.
"""

from dataclasses import dataclass

import torch

from .head import ELEMENT_BYTES
from .method import Answer, Baseline, group_scores

PUBLISHED_KEYS, PUBLISHED_EXACT, PUBLISHED_ESTIMATED = 16, 0.018, 0.232
KEYS_PER_CLUSTER = (8, 16, 32, 64, 128)
SMALL_CLUSTER_TOKENS_MAX = 1 << 18  # every key meets every centroid: 8 keys take too long beyond
ESTIMATED_SHARES = (0.0, 0.06, 0.12, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Setting:
    keys_per_cluster: int
    exact_rows: int  # clusters are retrieved while their rows together are no more
    estimated: int   # clusters


class RetroInfer(Baseline):
    """search_split: choose cluster size and split on training queries instead of 1.8 : 23.2."""

    def __init__(self, search_split=False):
        self.search_split = search_split
        self.name = "RetroInfer (best split)" if search_split else "RetroInfer (1.8 : 23.2)"

    def prepare(self):
        sizes = KEYS_PER_CLUSTER if self.search_split else (PUBLISHED_KEYS,)
        self._clusters = {size: self.head.clusters.spherical(size) for size in sizes
                          if size >= PUBLISHED_KEYS or self.head.tokens <= SMALL_CLUSTER_TOKENS_MAX}

    def scan_bytes(self, keys_per_cluster):
        """Every centroid and the size of every cluster."""
        clusters = len(self._clusters[keys_per_cluster].sizes)
        return clusters * (self.head.key_bytes + ELEMENT_BYTES)

    @property
    def published(self):
        if self.search_split:
            return None
        clusters = len(self._clusters[PUBLISHED_KEYS].sizes)
        return Setting(PUBLISHED_KEYS, round(PUBLISHED_EXACT * self.head.tokens),
                       round(PUBLISHED_ESTIMATED * clusters))

    def settings(self, budget):
        for size, clusters in self._clusters.items():
            count = len(clusters.sizes)
            spare = budget * self.head.all_bytes - self.scan_bytes(size)
            shares = ESTIMATED_SHARES if self.search_split else (self._scaled_share(spare, count),)
            for share in shares:
                estimated = int(share * count)
                rows = int((spare - estimated * self.head.value_bytes) / self.head.row_bytes)
                if rows > 0:
                    yield Setting(size, min(rows, self.head.tokens), estimated)

    def _scaled_share(self, spare, clusters):
        """Of clusters estimated, when both zones grow by one factor."""
        unit = (PUBLISHED_EXACT * self.head.all_bytes
                + PUBLISHED_ESTIMATED * clusters * self.head.value_bytes)
        return min(1.0, PUBLISHED_ESTIMATED * spare / unit)

    def answer(self, queries, setting):
        clusters = self._clusters[setting.keys_per_cluster]
        logits, ranking, rows_before = self.last.get(
            queries, setting.keys_per_cluster, lambda: self._scan(queries, clusters))
        retrieved = int(torch.searchsorted(rows_before, setting.exact_rows, right=True))
        total = self.head.new_sum(queries)
        rows = clusters.rows(ranking[:retrieved])
        self.head.attend_rows(total, queries, rows)
        estimated = ranking[retrieved:retrieved + setting.estimated]
        total.add(logits[:, estimated], clusters.value_sums[estimated], clusters.sizes[estimated])
        return Answer(total.output(), self.scan_bytes(setting.keys_per_cluster)
                      + len(rows) * self.head.row_bytes + len(estimated) * self.head.value_bytes)

    def _scan(self, queries, clusters):
        logits = queries @ clusters.centroids.T * self.head.logit_scale
        ranking = group_scores(logits).argsort(descending=True)
        return logits, ranking, clusters.sizes[ranking].long().cumsum(0)
