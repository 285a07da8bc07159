"""Measures nearest-neighbour libraries and PyTorch on a set of vectors.

    python -m peers.measure SET --out FILE.json [--heads 0,1] [--threads 1,2] [--questions 32]

Recall@100 by inner product against an exact scan, time of one query at a time (which includes the
call from Python: call_overhead_ms, measured on an index of few keys), bytes read, build time. The
libraries get questions one query head at a time, PyTorch a group at a time.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from baselines.vector_set import heads_argument, open_set, spread_groups

from .faiss_libraries import Flat, Hnsw, IvfFastScan, IvfFlat
from .graph_libraries import Hnswlib, Usearch
from .library import HARDWARE_THREADS, NEIGHBORS
from .scann_library import Scann
from .timing import PASSES, call_ms
from .torch_attention import measure_attention, measure_read_bandwidth

RECALL_ENOUGH = 0.9995  # a sweep ends here
MILLISECONDS_MAX = 100  # or here
FEW_KEYS = 256


def all_libraries(tokens):
    """Inverted files with 1024 to 8192 lists, as far as a list keeps 8 keys on average."""
    lists = [count for count in (1024, 2048, 4096, 8192) if count * 8 <= tokens] or [tokens // 32]
    yield Flat()
    yield from map(IvfFlat, lists)
    yield from map(IvfFastScan, lists)
    yield from map(Scann, lists[:3])
    yield from map(Hnsw, (16, 32))
    yield Hnswlib("l2")
    yield Hnswlib("l2", links=32, expansion=400)
    yield Hnswlib("ip")
    yield from map(Usearch, ("f32", "bf16", "i8"))


def exact_neighbors(keys, queries):
    """Sets of the row numbers of the best inner products, in float64."""
    scores = queries.astype(np.float64) @ keys.astype(np.float64).T
    return [set(row) for row in np.argpartition(-scores, NEIGHBORS, axis=1)[:, :NEIGHBORS].tolist()]


def recall(library, queries, expected):
    found = [len(best.intersection(library.search(query).tolist()))
             for query, best in zip(queries, expected)]
    return sum(found) / (NEIGHBORS * len(queries))


def overhead_ms(library, keys, queries, threads):
    """Of a call, from an index of the same kind over few keys; None where it cannot be so small."""
    if isinstance(library, (IvfFlat, Scann)):
        return None
    library.build(keys[:FEW_KEYS], 1)
    library.set_search(next(iter(library.parameters())), threads)
    return call_ms(library.search, queries[:16])


def measure_library(library, keys, queries, expected, threads, passes):
    overhead = overhead_ms(library, keys, queries, 1)
    begin = time.monotonic()
    library.build(keys, max(threads))
    seconds = time.monotonic() - begin
    common = {"peer": library.name, "build": library.build_parameters, "build_seconds": seconds,
              "build_threads": max(threads), "index_bytes": library.index_bytes(),
              "keys_per_second_per_core": len(keys) / seconds / max(threads),
              "call_overhead_ms": overhead}
    for number in threads[:1] if library.one_query_on_one_thread else threads:
        for parameters in library.parameters():
            library.set_search(parameters, number)
            found = recall(library, queries, expected)
            ms = call_ms(library.search, queries, passes)
            yield {**common, "search": parameters, "threads": number, "recall": found, "ms": ms,
                   "read_bytes": library.read_bytes(queries)}
            if found >= RECALL_ENOUGH and "candidates" not in parameters or ms > MILLISECONDS_MAX:
                break


def measure_head(vectors, group, question_groups, threads, passes, number):
    keys = vectors.keys.astype(np.float32)
    keys = np.ascontiguousarray(keys - keys.mean(axis=0))
    questions = spread_groups(vectors.questions, group, question_groups)
    queries = np.ascontiguousarray(questions.reshape(-1, keys.shape[1]))
    expected = exact_neighbors(keys, queries)
    for library in all_libraries(len(keys)):
        try:
            rows = list(measure_library(library, keys, list(queries), expected, threads, passes))
        except ImportError as missing:
            print(f"{library.name}: {missing}", file=sys.stderr)
            continue
        best = max(rows, key=lambda row: row["recall"])
        print(f"head {number}: {library.name} {library.build_parameters}, built in "
              f"{best['build_seconds']:.1f} s, recall {best['recall']:.4f} in {best['ms']:.3f} ms",
              file=sys.stderr)
        yield from ({"head": number, **row} for row in rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heads", help="such as 0,3; all without it")
    parser.add_argument("--threads", default=f"1,{HARDWARE_THREADS}")
    parser.add_argument("--questions", type=int, default=32, help="groups of query heads a head")
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--attention-only", action="store_true", help="PyTorch, no libraries")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    threads = sorted({int(number) for number in arguments.threads.split(",")})
    vector_set = open_set(arguments.set)
    numbers = heads_argument(arguments.heads, vector_set)
    heads = [vector_set.head(number) for number in numbers]
    report = {"set": vector_set.name, "tokens": vector_set.tokens,
              "head_dim": vector_set.head_dim, "group": vector_set.group,
              "question_groups": arguments.questions, "neighbors": NEIGHBORS,
              "hardware_threads": HARDWARE_THREADS,
              "read_gigabytes_per_second": measure_read_bandwidth(threads),
              "heads": numbers, "rows": [],
              "attention": measure_attention(heads, vector_set.group, vector_set.logit_scale,
                                             threads, arguments.passes)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.attention_only:
        arguments.out.write_text(json.dumps(report, indent=1))
        return
    for number, vectors in zip(numbers, heads):
        for row in measure_head(vectors, vector_set.group, arguments.questions, threads,
                                arguments.passes, number):
            report["rows"].append(row)
        arguments.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
