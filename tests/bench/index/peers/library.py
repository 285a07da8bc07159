"""The interface of a nearest-neighbour library under test."""

import os
from abc import ABC, abstractmethod

import numpy as np

FLOAT_BYTES = 4
NEIGHBORS = 100
HARDWARE_THREADS = len(os.sched_getaffinity(0))


class Library(ABC):
    """One library with its build parameters; ranks by inner product.

    Keys come with their mean taken off: for any query that changes all inner products by the same
    amount, so the ranking stays, and graphs as well as partitions are better for it.
    """

    name: str
    build_parameters: dict
    one_query_on_one_thread = True  # more threads would not help a query that comes alone

    @abstractmethod
    def build(self, keys, threads):
        """keys (n, dim) float32."""

    @abstractmethod
    def parameters(self):
        """Search parameters from fast to thorough, as dicts."""

    @abstractmethod
    def set_search(self, parameters, threads):
        """Prepares for search calls."""

    @abstractmethod
    def search(self, query):
        """Row numbers of about NEIGHBORS keys, best first. Only this is timed."""

    @abstractmethod
    def read_bytes(self, queries):
        """Bytes that a search reads, mean over queries; None where the library does not tell."""

    @abstractmethod
    def index_bytes(self):
        """Bytes of vectors and index in memory; None where the library does not tell."""


def powers(first, last, factor=2):
    value = first
    while value < last:
        yield value
        value *= factor
    yield last


def augmented(keys):
    """(n, dim + 1): under L2 the nearest to (q, 0) is the best inner product with q.

    The added number is sqrt(R^2 - |k|^2), R the largest norm (Bachrach et al., RecSys 2014).
    """
    squares = np.square(keys).sum(axis=1)
    return np.column_stack([keys, np.sqrt(squares.max() - squares)]).astype(np.float32)
