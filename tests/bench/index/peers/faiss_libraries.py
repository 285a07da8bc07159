"""faiss: exact scan, inverted files with and without product quantisation, HNSW."""

import faiss
import numpy as np

from .library import FLOAT_BYTES, NEIGHBORS, Library, powers

ID_BYTES = 8
TRAINING_KEYS_PER_LIST = 64


class FaissLibrary(Library):
    def build(self, keys, threads):
        faiss.omp_set_num_threads(threads)
        self.keys, self.dim = len(keys), keys.shape[1]
        self.index = self.make_index()
        if not self.index.is_trained:
            self.index.train(keys)
        self.index.add(keys)

    def set_search(self, parameters, threads):
        faiss.omp_set_num_threads(threads)
        self.apply(parameters)

    def search(self, query):
        return self.index.search(query[None], NEIGHBORS)[1][0]

    def index_bytes(self):
        return len(faiss.serialize_index(self.index))

    def make_index(self):
        raise NotImplementedError

    def apply(self, parameters):
        raise NotImplementedError


class Flat(FaissLibrary):
    name, build_parameters = "faiss Flat", {}
    one_query_on_one_thread = False

    def make_index(self):
        return faiss.IndexFlatIP(self.dim)

    def parameters(self):
        yield {}

    def apply(self, parameters):
        pass

    def read_bytes(self, queries):
        return self.keys * self.dim * FLOAT_BYTES


class IvfFlat(FaissLibrary):
    name = "faiss IVF-Flat"
    one_query_on_one_thread = False

    def __init__(self, lists):
        self.build_parameters = {"lists": lists}

    def make_index(self):
        lists = self.build_parameters["lists"]
        return self._limit_training(
            faiss.index_factory(self.dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT))

    def _limit_training(self, index):
        self.inverted_file = faiss.downcast_index(faiss.extract_index_ivf(index))
        self.inverted_file.cp.max_points_per_centroid = TRAINING_KEYS_PER_LIST
        return index

    def parameters(self):
        for probes in powers(1, self.build_parameters["lists"]):
            yield {"probes": probes}

    def apply(self, parameters):
        self.inverted_file.nprobe = parameters["probes"]

    def scanned(self, queries):
        """Keys in the probed lists, mean over queries."""
        statistics = faiss.cvar.indexIVF_stats
        statistics.reset()
        for query in queries:
            self.search(query)
        return statistics.ndis / len(queries)

    def read_bytes(self, queries):
        centroids = self.build_parameters["lists"] * self.dim * FLOAT_BYTES
        return centroids + self.scanned(queries) * (self.dim * FLOAT_BYTES + ID_BYTES)


class IvfFastScan(IvfFlat):
    """Four bits a dimension, of the residual; the best candidates are scored exactly.

    With one code for two dimensions, or without residuals, 800 candidates hold fewer than 0.94 of
    the best 100 of an encoder's head; so they hold 0.999.
    """

    name = "faiss IVF-PQ fast scan, refined"

    def make_index(self):
        lists = self.build_parameters["lists"]
        return self._limit_training(faiss.index_factory(
            self.dim, f"IVF{lists},PQ{self.dim}x4fsr,RFlat", faiss.METRIC_INNER_PRODUCT))

    def parameters(self):
        for candidates in (2, 4, 8):
            for probes in powers(1, self.build_parameters["lists"]):
                yield {"probes": probes, "candidates": candidates * NEIGHBORS}

    def apply(self, parameters):
        super().apply(parameters)
        self.index.k_factor = parameters["candidates"] / NEIGHBORS
        self._candidates = parameters["candidates"]

    def read_bytes(self, queries):
        centroids = self.build_parameters["lists"] * self.dim * FLOAT_BYTES
        code_bytes = self.dim / 2 + ID_BYTES
        refined = self._candidates * self.dim * FLOAT_BYTES
        return centroids + self.scanned(queries) * code_bytes + refined


class Hnsw(FaissLibrary):
    name = "faiss HNSW"

    def __init__(self, links, expansion=200):
        self.build_parameters = {"links": links, "expansion": expansion}

    def make_index(self):
        index = faiss.IndexHNSWFlat(self.dim, self.build_parameters["links"],
                                    faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.build_parameters["expansion"]
        return index

    def parameters(self):
        for expansion in powers(NEIGHBORS, 3200):
            yield {"expansion": expansion}

    def apply(self, parameters):
        self.index.hnsw.efSearch = parameters["expansion"]

    def read_bytes(self, queries):
        statistics = faiss.cvar.hnsw_stats
        statistics.reset()
        for query in queries:
            self.search(query)
        links = statistics.nhops * 2 * self.build_parameters["links"] * np.dtype(np.int32).itemsize
        return (statistics.ndis * self.dim * FLOAT_BYTES + links) / len(queries)
