"""Multipole Attention (arXiv 2506.13059, sections 3.1 and 3.2): no key is dropped.

Keys are clustered, and the clusters clustered again. Coarse centroids are scanned, the best coarse
clusters opened into their fine ones, the best of these attended exactly. Every other cluster, fine
or coarse, adds N exp(q.c) to the denominator and N exp(q.c) v to the numerator (c and v the means
of its keys and values). With fan_out 1 there is one level, and all its centroids are scanned.
"""

from dataclasses import dataclass, replace

import torch

from .clusters import Clusters
from .head import ELEMENT_BYTES
from .kmeans import euclidean_assignment
from .method import Answer, Baseline

KEYS_PER_CLUSTER = (8, 16, 32)
FAN_OUTS = (1, 8, 16)
OPENING_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Setting:
    keys_per_cluster: int
    fan_out: int          # fine clusters in a coarse one
    opening_bytes: float  # spent on fine clusters
    exact_bytes: float    # spent on keys and values


@dataclass(frozen=True)
class Tree:
    fine: Clusters
    coarse: Clusters    # its rows are fine clusters
    keys: torch.Tensor  # (coarse clusters,), keys in each, float32


def make_tree(fine, fan_out):
    assignment, _ = euclidean_assignment(fine.centroids, fine.sizes, fan_out)
    coarse = Clusters.of(fine.centroids, fine.value_sums, assignment)
    parent = torch.empty(len(fine.sizes), dtype=torch.long)
    parent[coarse.order] = torch.repeat_interleave(coarse.sizes.long())
    keys = torch.zeros(len(coarse.sizes)).index_add_(0, parent, fine.sizes)
    sums = torch.zeros_like(coarse.centroids).index_add_(
        0, parent, fine.centroids * fine.sizes[:, None])
    return Tree(fine, replace(coarse, centroids=sums / keys[:, None]), keys)


def scores(logits, sizes):
    """Equation 1, summed over the group."""
    normaliser = torch.logsumexp(logits + sizes.log(), dim=1, keepdim=True)
    return torch.exp(logits - normaliser).sum(dim=0)


def affordable(costs, spare):
    """How many of the first costs together are no more than spare."""
    return int(torch.searchsorted(costs.cumsum(0), spare, right=True))


class Multipole(Baseline):
    name = "Multipole"

    def prepare(self):
        self._trees = {}
        for size in KEYS_PER_CLUSTER:
            fine = self.head.clusters.euclidean(size)
            for fan_out in FAN_OUTS:
                tree = make_tree(fine, fan_out) if fan_out > 1 else Tree(fine, None, None)
                self._trees[size, fan_out] = tree
        self.scan_bytes = self.head.key_bytes + ELEMENT_BYTES  # a centroid and a size

    def settings(self, budget):
        for (size, fan_out), tree in self._trees.items():
            count = len(tree.fine.sizes if fan_out == 1 else tree.coarse.sizes)
            estimate_all = count * (self.scan_bytes + self.head.value_bytes)
            spare = budget * self.head.all_bytes - estimate_all
            if spare < self.head.row_bytes:
                continue
            for share in OPENING_SHARES if fan_out > 1 else (0.0,):
                yield Setting(size, fan_out, share * spare, (1 - share) * spare)

    def answer(self, queries, setting):
        tree = self._trees[setting.keys_per_cluster, setting.fan_out]
        total = self.head.new_sum(queries)
        bytes_read = 0
        fine = torch.arange(len(tree.fine.sizes))
        if setting.fan_out > 1:
            fine, bytes_read = self._open(total, queries, tree, setting)
        logits = queries @ tree.fine.centroids[fine].T * self.head.logit_scale
        ranking = scores(logits, tree.fine.sizes[fine]).argsort(descending=True)
        costs = tree.fine.sizes[fine][ranking].double() * self.head.row_bytes
        exact = affordable(costs - self.head.value_bytes, setting.exact_bytes)
        rows = tree.fine.rows(fine[ranking[:exact]])
        self.head.attend_rows(total, queries, rows)
        rest = ranking[exact:]
        total.add(logits[:, rest], tree.fine.value_sums[fine[rest]], tree.fine.sizes[fine[rest]])
        bytes_read += len(fine) * self.scan_bytes + len(rest) * self.head.value_bytes
        return Answer(total.output(), bytes_read + len(rows) * self.head.row_bytes)

    def _open(self, total, queries, tree, setting):
        """Estimates the coarse clusters not opened: (fine clusters of the others, bytes read)."""
        logits, ranking = self.last.get(
            queries, (setting.keys_per_cluster, setting.fan_out),
            lambda: self._scan(queries, tree))
        costs = tree.coarse.sizes[ranking].double() * (self.scan_bytes + self.head.value_bytes)
        opened = affordable(costs - self.head.value_bytes, setting.opening_bytes)
        rest = ranking[opened:]
        total.add(logits[:, rest], tree.coarse.value_sums[rest], tree.keys[rest])
        bytes_read = len(ranking) * self.scan_bytes + len(rest) * self.head.value_bytes
        return tree.coarse.rows(ranking[:opened]), bytes_read

    def _scan(self, queries, tree):
        logits = queries @ tree.coarse.centroids.T * self.head.logit_scale
        return logits, scores(logits, tree.keys).argsort(descending=True)
