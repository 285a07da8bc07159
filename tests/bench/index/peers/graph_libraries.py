"""hnswlib and USearch."""

import hnswlib
import numpy as np
from usearch.index import Index

from .library import NEIGHBORS, Library, augmented, powers

EXPANSIONS = tuple(powers(NEIGHBORS, 3200))
ELEMENT_BYTES = {"f32": 4, "bf16": 2, "i8": 1}
LINK_BYTES = 5  # USearch keeps row numbers of 40 bits


class Hnswlib(Library):
    """Under inner product, or under L2 on augmented keys. Reads are not counted by the library."""

    def __init__(self, space, links=16, expansion=200):
        self.name = "hnswlib, inner product" if space == "ip" else "hnswlib, L2 on augmented keys"
        self.space = space
        self.build_parameters = {"links": links, "expansion": expansion}

    def build(self, keys, threads):
        rows = keys if self.space == "ip" else augmented(keys)
        self.index = hnswlib.Index(space=self.space, dim=rows.shape[1])
        self.index.init_index(len(rows), M=self.build_parameters["links"],
                              ef_construction=self.build_parameters["expansion"])
        self.index.add_items(rows, num_threads=threads)

    def parameters(self):
        for expansion in EXPANSIONS:
            yield {"expansion": expansion}

    def set_search(self, parameters, threads):
        self.index.set_ef(parameters["expansion"])

    def search(self, query):
        query = query if self.space == "ip" else np.append(query, np.float32(0))
        return self.index.knn_query(query, NEIGHBORS, num_threads=1)[0][0]

    def read_bytes(self, queries):
        return None

    def index_bytes(self):
        return self.index.index_file_size()


class Usearch(Library):
    def __init__(self, element, links=16, expansion=200):
        self.name = f"USearch {element}"
        self.build_parameters = {"element": element, "links": links, "expansion": expansion}

    def build(self, keys, threads):
        self.dim, element = keys.shape[1], self.build_parameters["element"]
        self.index = Index(ndim=self.dim, metric="ip", dtype=element,
                           connectivity=self.build_parameters["links"],
                           expansion_add=self.build_parameters["expansion"])
        self.index.add(np.arange(len(keys)), self._rows(keys), threads=threads)

    def _rows(self, vectors):
        """As i8 with one scale, which keeps the ranking; USearch itself would take norms off."""
        if self.build_parameters["element"] != "i8":
            return vectors
        return np.rint(vectors * (127 / np.abs(vectors).max())).astype(np.int8)

    def parameters(self):
        for expansion in EXPANSIONS:
            yield {"expansion": expansion}

    def set_search(self, parameters, threads):
        self.index.expansion_search = parameters["expansion"]

    def search(self, query):
        return self._matches(query).keys

    def _matches(self, query):
        return self.index.search(self._rows(query), NEIGHBORS, threads=1)

    def read_bytes(self, queries):
        matches = [self._matches(query) for query in queries]
        vectors = np.mean([match.computed_distances for match in matches])
        visited = np.mean([match.visited_members for match in matches])
        element = ELEMENT_BYTES[self.build_parameters["element"]]
        links = visited * 2 * self.build_parameters["links"] * LINK_BYTES
        return float(vectors * self.dim * element + links)

    def index_bytes(self):
        return self.index.memory_usage
