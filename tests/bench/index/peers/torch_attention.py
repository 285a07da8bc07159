"""PyTorch's scaled_dot_product_attention over all keys, and how fast the machine reads memory."""

import numpy as np
import torch

from .timing import best_seconds, call_ms

READ_BYTES = 1 << 30
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def attention_ms(keys, values, queries, logit_scale, passes):
    """Milliseconds for one group of queries.

    keys, values (heads, tokens, dim), queries (n, heads, group, dim). The group takes the place of
    query positions, so that one matrix product serves it.
    """
    def attend(query):
        return torch.nn.functional.scaled_dot_product_attention(
            query[None], keys[None], values[None], scale=logit_scale)

    with torch.inference_mode():
        return call_ms(attend, list(queries), passes)


def measure_attention(heads, group, logit_scale, threads, passes):
    """Rows for one kv head and for all given heads at once, in both types.

    heads: HeadVectors with as many questions each.
    """
    rows = []
    for count in sorted({1, len(heads)}):
        for name, dtype in TYPES.items():
            keys, values = (
                torch.stack([torch.from_numpy(getattr(head, array)).to(dtype)
                             for head in heads[:count]]) for array in ("keys", "values"))
            questions = np.stack([head.questions for head in heads[:count]], axis=1)
            queries = torch.from_numpy(questions).to(dtype).unflatten(0, (-1, group))
            queries = queries.transpose(1, 2)[:16]
            read = keys.numel() * keys.element_size() + values.numel() * values.element_size()
            for number in threads:
                torch.set_num_threads(number)
                ms = attention_ms(keys, values, queries, logit_scale, passes)
                rows.append({"peer": "PyTorch scaled_dot_product_attention", "element": name,
                             "kv_heads": count, "threads": number, "ms": ms,
                             "ms_per_kv_head": ms / count, "read_bytes": read,
                             "gigabytes_per_second": read / ms / 1e6})
    return rows


def measure_read_bandwidth(threads):
    """Sums of a large float32 array, in PyTorch with each number of threads and in NumPy."""
    array = np.ones(READ_BYTES // 4, dtype=np.float32)
    tensor = torch.from_numpy(array)
    rows = []
    for number in threads:
        torch.set_num_threads(number)
        best, median = best_seconds(lambda: tensor.sum())
        rows.append({"what": "torch.sum", "threads": number, "best": READ_BYTES / best / 1e9,
                     "median": READ_BYTES / median / 1e9})
    best, median = best_seconds(lambda: array.sum())
    rows.append({"what": "numpy.sum", "threads": 1, "best": READ_BYTES / best / 1e9,
                 "median": READ_BYTES / median / 1e9})
    return rows
