"""MagicPIG (arXiv 2410.16179, section 4): attention from keys sampled by hashing.

L tables of K SimHash bits of the centred keys. A key is sampled by a query that meets it in two
tables or more, which happens with probability
    u = 1 - (1 - p^K)^L - L p^K (1 - p^K)^(L-1),   p = 1 - angle(q, k) / pi;
every sampled key counts with weight exp(logit) / u, in the numerator and in the denominator. Query
heads sample for themselves; what two of them sample is read once. A query reads the buckets it
falls into (key ids of 4 bytes, and where they start and end) and the sampled keys and values; the
projections are shared by all heads and tables of a model and are not charged. Published: K 10,
L 150.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .attention import AttentionSum
from .method import Answer, Baseline

ID_BYTES = 4
PUBLISHED = (10, 150)
TABLES_MAX = {8: 240, 10: 400, 11: 400, 12: 400}  # by K; 400 tables are 1,600 bytes a key
TABLES_MAX_LONG, LONG_TOKENS = {10: 400, 12: 400}, 1 << 18  # of a million keys already 3.3 GB
LENGTH_STEPS = 24


@dataclass(frozen=True)
class Setting:
    bits: int    # K
    tables: int  # L


class HashTables:
    """Ids of all keys sorted by signature, table by table."""

    def __init__(self, centred_keys, bits, tables, generator):
        dim = centred_keys.shape[1]
        self._powers = 2.0 ** torch.arange(bits)
        self._directions = torch.randn(tables, dim, bits, generator=generator)
        self._ids, self._starts = [], []
        for directions in self._directions:
            signatures = self._signatures(centred_keys, directions)
            order = np.argsort(signatures.numpy().astype(np.uint16), kind="stable")  # radix sort
            self._ids.append(torch.from_numpy(order.astype(np.int32)))
            counts = torch.bincount(signatures, minlength=2**bits)
            self._starts.append(torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]))

    def _signatures(self, vectors, directions):
        return ((vectors @ directions > 0).float() @ self._powers).long()

    def bucket_ids(self, query):
        """The ids in the query's bucket, for each table."""
        signatures = self._signatures(query, self._directions).tolist()
        return [ids[starts[s]:starts[s + 1]]
                for ids, starts, s in zip(self._ids, self._starts, signatures)]


def sampling_probability(cosine, bits, tables):
    """u of the module's docstring, in float64."""
    collision = (1 - torch.acos(cosine.double().clamp(-1, 1)) / torch.pi) ** bits
    miss = torch.log1p(-collision.clamp(max=1 - 1e-12))
    once = tables * collision * torch.exp((tables - 1) * miss)
    return (1 - torch.exp(tables * miss) - once).clamp_min(1e-12)


class MagicPig(Baseline):
    name = "MagicPIG"

    def __init__(self, seed=0, tables_max=None):
        self.seed, self._given = seed, tables_max

    def prepare(self):
        is_long = self.head.tokens > LONG_TOKENS
        self._tables_max = self._given or (TABLES_MAX_LONG if is_long else TABLES_MAX)
        self._mean = self.head.keys.mean(dim=0)
        centred = self.head.keys - self._mean
        generator = torch.Generator().manual_seed(self.seed)
        self._tables = {bits: HashTables(centred, bits, tables, generator)
                        for bits, tables in self._tables_max.items()}
        self._norms = torch.linalg.vector_norm(centred, dim=1)
        self._costs = {bits: self._mean_bytes(bits) for bits in self._tables}

    @property
    def published(self):
        bits, tables = PUBLISHED
        return Setting(bits, tables) if self._tables_max.get(bits, 0) >= tables else None

    def settings(self, budget):
        """For each K the most tables that training queries can afford on average."""
        for bits, (tables, costs) in self._costs.items():
            spare = budget * self.head.all_bytes
            if costs[0] <= spare:
                yield Setting(bits, int(np.interp(spare, costs, tables)))

    def _mean_bytes(self, bits):
        """(numbers of tables, bytes that a tuning group reads with each on average)."""
        lengths = np.geomspace(2, self._tables_max[bits], LENGTH_STEPS).round().astype(int)
        groups = self.head.tuning[::2]
        costs = np.zeros(len(lengths))
        for queries, _ in groups:
            for place, tables in enumerate(lengths):
                samples = self._samples(queries, Setting(bits, tables))
                costs[place] += self._bytes(samples, tables) / len(groups)
        return lengths, costs

    def _samples(self, queries, setting):
        """Per query head (times each key was met or 0, bucket entries read)."""
        buckets = self.last.get(queries, setting.bits, lambda: [
            self._tables[setting.bits].bucket_ids(query) for query in queries])
        samples = []
        for ids in buckets:
            met = torch.cat(ids[:setting.tables])
            samples.append((torch.bincount(met, minlength=self.head.tokens), len(met)))
        return samples

    def _bytes(self, samples, tables):
        sampled = torch.stack([met for met, _ in samples]).amax(dim=0) >= 2
        entries = sum(entries for _, entries in samples)
        lookups = len(samples) * tables * 2
        return int(sampled.sum()) * self.head.row_bytes + (entries + lookups) * ID_BYTES

    def sums(self, queries, setting):
        """(AttentionSum, bytes read); numerator and denominator are unbiased estimates."""
        samples = self._samples(queries, setting)
        met = torch.stack([met for met, _ in samples])
        rows = (met.amax(dim=0) >= 2).nonzero().squeeze(1)
        keys = self.head.keys[rows]
        products = queries @ (keys - self._mean).T
        norms = torch.linalg.vector_norm(queries, dim=1, keepdim=True) * self._norms[rows]
        probability = sampling_probability(products / norms.clamp_min(1e-30), setting.bits,
                                           setting.tables)
        logits = (queries @ keys.T).double() * self.head.logit_scale - probability.log()
        logits = torch.where(met[:, rows] >= 2, logits, -torch.inf)
        total = AttentionSum(len(queries), self.head.values.shape[1], torch.float64)
        total.add(logits, self.head.values[rows].double())
        return total, self._bytes(samples, setting.tables)

    def answer(self, queries, setting):
        total, bytes_read = self.sums(queries, setting)
        return Answer(total.output(), bytes_read)
