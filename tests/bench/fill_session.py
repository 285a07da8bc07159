"""Appends made-up keys and values to a new session of a store, for `attic bench attend`.

    python fill_session.py ADDRESS SESSION_ID TOKENS
"""

import sys
import time
from pathlib import Path

import numpy as np
from synthetic_vectors import make_head

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from reflection_test import KV_HEADS, Q_HEADS, VALUE_DIM, Store  # noqa: E402

BATCH_TOKENS = 8192
SAMPLES = 128


def requests(store, session_id, tokens):
    heads = [make_head(tokens, seed=head) for head in range(KV_HEADS)]
    queries, keys, values = (np.stack(part, axis=1) for part in zip(*heads))
    values = np.ascontiguousarray(values[..., :VALUE_DIM])
    samples = np.repeat(queries, Q_HEADS // KV_HEADS, axis=1)
    for begin in range(0, tokens, BATCH_TOKENS):
        end = min(begin + BATCH_TOKENS, tokens)
        sample = samples[len(samples) * begin // tokens:][:SAMPLES].tobytes()
        yield store.append_request(session_id, begin, keys[begin:end], values[begin:end], sample)


def wait_for_builds(store):
    request = store.message("GetStatusRequest")
    while store.admin.GetStatus(request, timeout=60).pending_segments > 0:
        time.sleep(0.1)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    address, session_id, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = Store(address)
    store.open(session_id)
    for response in store.attention.Append(requests(store, session_id, tokens), timeout=600):
        if response.error.code != 0:
            sys.exit(response.error.message)
    wait_for_builds(store)


if __name__ == "__main__":
    main()
