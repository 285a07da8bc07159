"""ScaNN, where it can be imported: partitions, anisotropic quantisation, exact reordering."""

import numpy as np

from .library import FLOAT_BYTES, NEIGHBORS, Library, powers

DIMENSIONS_PER_CODE, CODE_BYTES = 2, 0.5
TRAINING_KEYS_PER_LEAF = 64


class Scann(Library):
    name = "ScaNN"

    def __init__(self, leaves):
        self.build_parameters = {"leaves": leaves}

    def build(self, keys, threads):
        from scann import scann_ops_pybind  # only here: it does not exist for every machine
        self.keys, self.dim = keys.shape
        leaves = self.build_parameters["leaves"]
        builder = scann_ops_pybind.builder(keys, NEIGHBORS, "dot_product")
        builder.set_n_training_threads(threads)
        self.index = (builder.tree(leaves, max(1, leaves // 16),
                                   training_sample_size=min(self.keys,
                                                            leaves * TRAINING_KEYS_PER_LEAF))
                      .score_ah(DIMENSIONS_PER_CODE, anisotropic_quantization_threshold=0.2)
                      .reorder(4 * NEIGHBORS).build())

    def parameters(self):
        for candidates in (2, 4, 16):
            for leaves in powers(1, self.build_parameters["leaves"]):
                yield {"leaves": leaves, "candidates": candidates * NEIGHBORS}

    def set_search(self, parameters, threads):
        self._parameters = parameters

    def search(self, query):
        return self.index.search(query, final_num_neighbors=NEIGHBORS,
                                 leaves_to_search=self._parameters["leaves"],
                                 pre_reorder_num_neighbors=self._parameters["candidates"])[0]

    def read_bytes(self, queries):
        """Taking the searched leaves as of average size: the library does not tell."""
        share = self._parameters["leaves"] / self.build_parameters["leaves"]
        codes = share * self.keys * np.ceil(self.dim / DIMENSIONS_PER_CODE) * CODE_BYTES
        vectors = self.build_parameters["leaves"] + self._parameters["candidates"]
        return float(codes + vectors * self.dim * FLOAT_BYTES)

    def index_bytes(self):
        return None
