"""Clusters of a head's keys with their sums, kept in memory and, as assignments, on disk."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import kmeans

FORMAT = 1  # part of the file names; goes up when the clustering changes


@dataclass(frozen=True)
class Clusters:
    """Clusters without empty ones, and the rows of each."""

    centroids: torch.Tensor   # (clusters, head_dim), means of the keys
    value_sums: torch.Tensor  # (clusters, value_dim)
    sizes: torch.Tensor       # (clusters,), float32
    order: torch.Tensor       # (tokens,), rows sorted by cluster
    starts: torch.Tensor      # (clusters,), where a cluster's rows start in order

    @classmethod
    def of(cls, keys, values, assignment):
        _, assignment = torch.unique(assignment, return_inverse=True)
        counts = torch.bincount(assignment)
        sizes = counts.float()
        key_sums = torch.zeros(len(counts), keys.shape[1]).index_add_(0, assignment, keys)
        value_sums = torch.zeros(len(counts), values.shape[1]).index_add_(0, assignment, values)
        return cls(key_sums / sizes[:, None], value_sums, sizes,
                   torch.argsort(assignment, stable=True), counts.cumsum(0) - counts)

    def rows(self, clusters):
        """Rows of the given clusters, cluster after cluster."""
        lengths = self.sizes[clusters].long()
        ends = lengths.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        shift = torch.repeat_interleave(self.starts[clusters] - ends + lengths, lengths)
        return self.order[shift + torch.arange(total)]


class ClusterSource:
    """Makes the clusters of one head once; with a folder, keeps the assignments there."""

    def __init__(self, keys, values, folder=None, head=0):
        self._keys, self._values = keys, values
        self._folder, self._head = folder and Path(folder), head
        self._made = {}

    def spherical(self, keys_per_cluster):
        return self._get(f"spherical_{keys_per_cluster}", lambda: (
            kmeans.spherical_assignment(self._keys, keys_per_cluster)[0]))

    def euclidean(self, keys_per_cluster):
        ones = torch.ones(len(self._keys))
        return self._get(f"euclidean_{keys_per_cluster}", lambda: (
            kmeans.euclidean_assignment(self._keys, ones, keys_per_cluster)[0]))

    def _get(self, name, assign):
        if name not in self._made:
            self._made[name] = Clusters.of(self._keys, self._values, self._assignment(name, assign))
        return self._made[name]

    def _assignment(self, name, assign):
        if self._folder is None:
            return assign()
        path = self._folder / f"clusters{FORMAT}_{name}_{self._head}.npy"
        source = self._folder / f"keys_{self._head}.npy"
        if path.exists() and path.stat().st_mtime > source.stat().st_mtime:
            return torch.from_numpy(np.load(path)).long()
        assignment = assign()
        beside = path.with_suffix(f".{os.getpid()}.npy")
        np.save(beside, assignment.numpy().astype(np.int32))
        beside.replace(path)
        return assignment
