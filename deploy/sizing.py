#!/usr/bin/env python3
"""How many stores a load needs. Without options it prints the table of deploy/README.md.

    deploy/sizing.py --layers 32 --kv-heads 8 --head-dim 128 --tokens 1048576 --users 100

Bytes of keys and values of a token: 2 (key and value) * layers * kv heads * head_dim * 2
(bfloat16), where layers are those with full attention: sliding-window layers stay on the worker.
Sums, codes and unfilled tails come on top (INDEX), everything is held `replicas` times, and stores
are filled to FILL.
"""

import argparse
import math
from collections import namedtuple

INDEX = 1.2  # README.md, "Measured against others": 15.9% to 18.8% over keys and values
FILL = 0.6  # a lost zone of three makes it 0.9, and slots are balanced within a tenth
ZONES = 3
REPLICAS = 2
MEMORY_LIMIT_GIB = 192  # MEMORY_LIMIT of the production overlay
MEMORY_LIMIT_SHARE = 0.75  # of the pod's memory
DISK_FACTOR = 4  # sessions four times as large as memory: 1.9 times the latency, ./run bench tiers

Model = namedtuple("Model", "name layers kv_heads head_dim")
MODELS = (
    Model("Llama-3-8B", 32, 8, 128),
    Model("Qwen3-8B", 36, 8, 128),
    Model("Gemma-3-27B (10 of 62 layers)", 10, 16, 128),
    Model("Llama-3-70B", 80, 8, 128),
)
LOADS = ((131_072, 100), (1_048_576, 10), (1_048_576, 100))


def bytes_per_token(model):
    return 2 * model.layers * model.kv_heads * model.head_dim * 2


def bytes_of(model, tokens, users, replicas=REPLICAS):
    return bytes_per_token(model) * tokens * users * INDEX * replicas


def nodes_for(total_bytes, memory_limit_gib=MEMORY_LIMIT_GIB):
    """Stores, as many in each zone."""
    nodes = math.ceil(total_bytes / (memory_limit_gib * FILL * 2**30))
    return math.ceil(nodes / ZONES) * ZONES


def row(model, tokens, users, replicas=REPLICAS, memory_limit_gib=MEMORY_LIMIT_GIB):
    total = bytes_of(model, tokens, users, replicas)
    return (
        f"| {model.name} | {bytes_per_token(model) // 1024:,} KiB | {tokens:,} | {users:,} | "
        f"{total / 2**40:.1f} TiB | {nodes_for(total, memory_limit_gib):,} | "
        f"{nodes_for(total / DISK_FACTOR, memory_limit_gib):,} |")


def table(rows):
    head = ("model", "a token", "tokens of a session", "sessions", f"memory, {REPLICAS} replicas",
            f"stores of {MEMORY_LIMIT_GIB} GiB", f"vectors {DISK_FACTOR} times memory, on disk")
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])


def main():
    parser = argparse.ArgumentParser(description="How many stores a load needs.")
    for option in ("layers", "kv-heads", "head-dim", "tokens", "users"):
        parser.add_argument(f"--{option}", type=int)
    parser.add_argument("--replicas", type=int, default=REPLICAS)
    parser.add_argument("--memory-limit-gib", type=int, default=MEMORY_LIMIT_GIB)
    flags = parser.parse_args()
    chosen = (flags.layers, flags.kv_heads, flags.head_dim, flags.tokens, flags.users)
    if not any(chosen):
        print(table([row(model, *load) for model in MODELS for load in LOADS]))
        return
    if not all(chosen):
        parser.error("all of --layers --kv-heads --head-dim --tokens --users are needed")
    model = Model("the model", flags.layers, flags.kv_heads, flags.head_dim)
    total = bytes_of(model, flags.tokens, flags.users, flags.replicas)
    print(f"a token: {bytes_per_token(model):,} bytes of keys and values")
    print(f"memory: {total / 2**30:,.0f} GiB, {flags.replicas} replicas")
    limit = flags.memory_limit_gib
    print(f"stores of {limit / MEMORY_LIMIT_SHARE:.0f} GiB with --memory-limit={limit}GiB: "
          f"{nodes_for(total, limit)}")
    print(f"stores where vectors are on disk, {DISK_FACTOR} times as large as memory: "
          f"{nodes_for(total / DISK_FACTOR, limit)}")


if __name__ == "__main__":
    main()
