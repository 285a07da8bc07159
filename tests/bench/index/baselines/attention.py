"""Exact attention, and attention summed up from pieces."""

import torch

BLOCK_ROWS = 16384


class AttentionSum:
    """Numerator and denominator of a group's softmax, gathered piece by piece.

    Each piece is relative to the largest logit so far, as in online softmax (arXiv 1805.02867).
    """

    def __init__(self, heads, value_dim, dtype=torch.float32):
        self.largest = torch.full((heads, 1), -torch.inf, dtype=dtype)
        self.denominator = torch.zeros((heads, 1), dtype=dtype)
        self.numerator = torch.zeros((heads, value_dim), dtype=dtype)

    def add(self, logits, values, sizes=None):
        """logits (heads, n), values (n, value_dim).

        With sizes (n,), a row stands for that many keys, and its value is their sum.
        """
        if logits.shape[1] == 0:
            return
        largest = torch.maximum(self.largest, logits.amax(dim=1, keepdim=True))
        reference = torch.where(largest.isfinite(), largest, 0)
        shrink = torch.exp(self.largest - reference)
        weights = torch.exp(logits - reference)
        mass = weights if sizes is None else weights * sizes
        self.denominator = self.denominator * shrink + mass.sum(dim=1, keepdim=True)
        self.numerator = self.numerator * shrink + weights @ values
        self.largest = largest

    def output(self):
        """(heads, value_dim); zeros where nothing was added."""
        return self.numerator / self.denominator.clamp_min(torch.finfo(torch.float32).tiny)


def exact_attention(keys, values, queries, logit_scale):
    """(queries, value_dim) in float64, over all keys."""
    queries = queries.double() * logit_scale
    total = AttentionSum(len(queries), values.shape[1], torch.float64)
    for begin in range(0, len(keys), BLOCK_ROWS):
        block = slice(begin, begin + BLOCK_ROWS)
        total.add(queries @ keys[block].double().T, values[block].double())
    return total.output()


def relative_errors(outputs, exact):
    """(queries,): L2 norm of the difference over L2 norm of the exact output."""
    difference = torch.linalg.vector_norm(outputs.double() - exact, dim=-1)
    return difference / torch.linalg.vector_norm(exact, dim=-1)
