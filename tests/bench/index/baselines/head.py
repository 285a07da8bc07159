"""One kv head as the baselines see it: arrays, bytes, clusters, queries to choose settings by."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .attention import AttentionSum, exact_attention
from .clusters import ClusterSource
from .vector_set import spread_groups

ELEMENT_BYTES = 2  # bfloat16
TUNING_GROUPS, TUNING_QUERIES = 16, 32  # as many groups as give both


@dataclass(frozen=True)
class Head:
    """One kv head: keys (tokens, head_dim), values (tokens, value_dim), float32."""

    keys: torch.Tensor
    values: torch.Tensor
    training: np.ndarray  # (n, head_dim), the query heads of a group in consecutive rows
    group: int
    logit_scale: float
    clusters: ClusterSource

    @classmethod
    def of(cls, keys, values, training, group, logit_scale, folder=None, number=0):
        keys = torch.as_tensor(np.asarray(keys, dtype=np.float32))
        values = torch.as_tensor(np.asarray(values, dtype=np.float32))
        return cls(keys, values, np.asarray(training, dtype=np.float32), group, logit_scale,
                   ClusterSource(keys, values, folder, number))

    @property
    def tokens(self):
        return len(self.keys)

    @property
    def key_bytes(self):
        return self.keys.shape[1] * ELEMENT_BYTES

    @property
    def value_bytes(self):
        return self.values.shape[1] * ELEMENT_BYTES

    @property
    def row_bytes(self):
        """Of one key and its value."""
        return self.key_bytes + self.value_bytes

    @property
    def all_bytes(self):
        return self.tokens * self.row_bytes

    @cached_property
    def tuning(self):
        """[(queries, exact outputs)] of groups of training queries."""
        count = max(TUNING_GROUPS, TUNING_QUERIES // self.group)
        groups = torch.from_numpy(spread_groups(self.training, self.group, count))
        exact = exact_attention(self.keys, self.values, groups.flatten(0, 1), self.logit_scale)
        return list(zip(groups, exact.unflatten(0, (len(groups), self.group))))

    def attend_rows(self, total, queries, rows):
        """Adds the keys and values of these rows, exactly, to an AttentionSum."""
        total.add(queries @ self.keys[rows].T * self.logit_scale, self.values[rows])

    def new_sum(self, queries):
        return AttentionSum(len(queries), self.values.shape[1])
