"""Drives a store knowing nothing but its address: messages and methods come by server reflection.

Under pytest it starts the built attic-store on a free port. On its own it takes an address:
    python reflection_test.py 127.0.0.1:7400
"""

import math
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

BUILD = Path(__file__).resolve().parents[2] / "build/release/bin"
STORE = Path(os.environ.get("ATTIC_BIN", BUILD)) / "attic-store"
TIMEOUT_S = 60

LAYER = 1
Q_HEADS, KV_HEADS, HEAD_DIM, VALUE_DIM = 8, 2, 64, 48
LOGIT_SCALE = 1 / math.sqrt(HEAD_DIM)
TOKENS = 3000


class Service:
    """The methods of one service as Python methods, made from its descriptor."""

    def __init__(self, channel, pool, name):
        for method in pool.FindServiceByName(name).methods:
            kind = f"{'stream' if method.client_streaming else 'unary'}_" \
                   f"{'stream' if method.server_streaming else 'unary'}"
            setattr(self, method.name, getattr(channel, kind)(
                f"/{name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=message_factory.GetMessageClass(
                    method.output_type).FromString))


class Store:
    """A store seen through reflection."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", 64 << 20)])
        grpc.channel_ready_future(self.channel).result(timeout=TIMEOUT_S)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.services = set(database.get_services())
        self.pool = descriptor_pool.DescriptorPool(database)
        self.sessions = Service(self.channel, self.pool, "attic.v1.SessionService")
        self.attention = Service(self.channel, self.pool, "attic.v1.AttentionService")
        self.admin = Service(self.channel, self.pool, "attic.v1.AdminService")
        self.boot_id = None

    def message(self, name, **fields):
        descriptor = self.pool.FindMessageTypeByName(f"attic.v1.{name}")
        return message_factory.GetMessageClass(descriptor)(**fields)

    def fingerprint(self, **changes):
        fields = dict(
            model_id="reflection-test", revision="1", layers=2, q_heads=Q_HEADS, kv_heads=KV_HEADS,
            head_dim=HEAD_DIM, value_dim=VALUE_DIM, element_type=1, logit_scale=LOGIT_SCALE,
            position_encoding="none")
        return self.message("Fingerprint", **{**fields, **changes})

    def open(self, session_id, **fingerprint_changes):
        request = self.message(
            "OpenRequest", session_id=session_id, stored_layers=[LAYER],
            fingerprint=self.fingerprint(**fingerprint_changes))
        return self.sessions.Open(request, timeout=TIMEOUT_S)

    def append_request(self, session_id, begin, keys, values, query_sample=b""):
        return self.message(
            "AppendRequest", session_id=session_id, layer=LAYER, begin_position=begin,
            count=len(keys), keys=keys.tobytes(), values=values.tobytes(),
            query_sample=query_sample)

    def append(self, *requests):
        return list(self.attention.Append(iter(requests), timeout=TIMEOUT_S))

    def attend_request(self, session_id, queries, **item_fields):
        item = self.message(
            "AttendItem", session_id=session_id, queries=queries.tobytes(), **item_fields)
        return self.message("AttendRequest", request_id=7, layer=LAYER, items=[item])


def numpy_attention(queries, keys, values):
    """(output, log_sum_exp) of grouped-query attention in double."""
    outputs, sums = [], []
    for head, query in enumerate(queries.astype(np.float64)):
        kv_head = head // (Q_HEADS // KV_HEADS)
        logits = LOGIT_SCALE * keys[:, kv_head].astype(np.float64) @ query
        weights = np.exp(logits - logits.max())
        outputs.append(weights @ values[:, kv_head].astype(np.float64) / weights.sum())
        sums.append(logits.max() + math.log(weights.sum()))
    return np.array(outputs), np.array(sums)


def random_tokens(seed):
    generator = np.random.default_rng(seed)
    keys = generator.standard_normal((TOKENS, KV_HEADS, HEAD_DIM), dtype=np.float32)
    values = generator.standard_normal((TOKENS, KV_HEADS, VALUE_DIM), dtype=np.float32)
    queries = 2 * generator.standard_normal((Q_HEADS, HEAD_DIM), dtype=np.float32)
    return keys, values, queries


def check_answer(item, queries, keys, values):
    assert item.error.code == 0, item.error.message
    output = np.frombuffer(item.output, np.float32).reshape(Q_HEADS, VALUE_DIM)
    expected, expected_sums = numpy_attention(queries, keys, values)
    assert np.linalg.norm(output - expected) < 1e-3 * np.linalg.norm(expected)
    np.testing.assert_allclose(item.log_sum_exp, expected_sums, atol=1e-3)
    assert all(0 <= coverage <= 1.0001 for coverage in item.coverage)
    assert len(item.estimated_error) == Q_HEADS


def check_refused(error, code, *words):
    """`error` is an attic.v1.Error or a failed call."""
    if isinstance(error, grpc.RpcError):
        got, text = error.code().value[0], error.details()
    else:
        got, text = error.code, error.message
    assert got == code.value[0], f"{got} is not {code}: {text}"
    assert all(word in text for word in words), f"'{text}' does not name {words}"


@pytest.fixture(scope="module")
def store():
    process = subprocess.Popen(
        [STORE, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        ready = process.stdout.readline()
        match = re.fullmatch(r"attic-store ready on (\S+) boot_id=(\S+)\n", ready)
        assert match, f"unexpected first line: {ready!r}"
        connected = Store(match.group(1))
        connected.boot_id = match.group(2)
        yield connected
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


@pytest.fixture
def session_id(store):
    name = f"reflection-{uuid.uuid4().hex}"
    store.open(name)
    yield name
    store.sessions.Close(store.message("CloseRequest", session_id=name), timeout=TIMEOUT_S)


def test_services_and_health(store):
    wanted = {"attic.v1.SessionService", "attic.v1.AttentionService", "attic.v1.AdminService"}
    assert wanted <= store.services
    health = health_pb2_grpc.HealthStub(store.channel)
    response = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert response.status == health_pb2.HealthCheckResponse.SERVING
    status = store.admin.GetStatus(store.message("GetStatusRequest"), timeout=TIMEOUT_S)
    assert status.version and status.boot_id and status.vector_target
    assert store.boot_id in (None, status.boot_id)


def test_attention_equals_numpy(store, session_id, seed=20261123):
    print("seed", seed)
    keys, values, queries = random_tokens(seed)
    sample = np.repeat(queries[None], 3, axis=0).tobytes()
    bounds = [(0, 1000), (1000, 1001), (1001, TOKENS)]
    acknowledged = store.append(*(
        store.append_request(session_id, begin, keys[begin:end], values[begin:end], sample)
        for begin, end in bounds))
    assert [response.error.code for response in acknowledged] == [0, 0, 0]
    assert [response.watermark for response in acknowledged] == [end for _, end in bounds]

    request = store.attend_request(session_id, queries, min_watermark=TOKENS)
    unary = store.attention.Attend(request, timeout=TIMEOUT_S)
    (streamed,) = store.attention.AttendStream(iter([request]), timeout=TIMEOUT_S)
    for response in (unary, streamed):
        assert response.request_id == 7 and response.error.code == 0
        assert store.boot_id in (None, response.boot_id)
        check_answer(response.items[0], queries, keys, values)
        assert response.items[0].range.end == TOKENS

    part = store.message("PositionRange", begin=500, end=2500)
    exact = store.attend_request(session_id, queries, range=part, mode=2)
    response = store.attention.Attend(exact, timeout=TIMEOUT_S)
    check_answer(response.items[0], queries, keys[500:2500], values[500:2500])


GOALS = [
    {"top_k": 100}, {"token_budget": 500}, {"coverage": 0.9}, {"max_error": 0.05},
    {"inner_product_range": 3.0}]
BAD_GOALS = [
    {"top_k": 0}, {"token_budget": 0}, {"coverage": 0.0}, {"coverage": 1.5},
    {"coverage": math.nan}, {"max_error": 0.0}, {"max_error": 1.5}, {"max_error": math.nan},
    {"inner_product_range": -1.0}, {"inner_product_range": math.inf}]


def test_accuracy_is_part_of_the_request(store, session_id, seed=11):
    keys, values, queries = random_tokens(seed)
    store.append(store.append_request(session_id, 0, keys, values))
    for goal in [{}, *GOALS]:
        selection = store.message("SelectionPolicy", **goal)
        for mode in (1, 2):
            request = store.attend_request(session_id, queries, mode=mode, selection=selection)
            (item,) = store.attention.Attend(request, timeout=TIMEOUT_S).items
            check_answer(item, queries, keys, values)  # so short a session is scanned exactly
            assert list(item.estimated_error) == [0] * Q_HEADS
    for goal in BAD_GOALS:
        selection = store.message("SelectionPolicy", **goal)
        request = store.attend_request(session_id, queries, selection=selection)
        (item,) = store.attention.Attend(request, timeout=TIMEOUT_S).items
        check_refused(item.error, grpc.StatusCode.INVALID_ARGUMENT, f"selection.{[*goal][0]}")
    over = store.attend_request(
        session_id, queries, selection=store.message("SelectionPolicy", top_k=(1 << 20) + 1))
    (item,) = store.attention.Attend(over, timeout=TIMEOUT_S).items
    check_refused(item.error, grpc.StatusCode.RESOURCE_EXHAUSTED, "selection_top_k_max")


def test_search_equals_numpy(store, session_id, seed=7):
    keys, values, queries = random_tokens(seed)
    store.append(store.append_request(session_id, 0, keys, values))
    request = store.message(
        "SearchRequest", session_id=session_id, layer=LAYER, k=10, with_vectors=True,
        queries=queries.tobytes())
    heads = store.attention.Search(request, timeout=TIMEOUT_S).heads
    assert len(heads) == Q_HEADS
    for head, hits in enumerate(heads):
        kv_head = head // (Q_HEADS // KV_HEADS)
        best = np.argsort(-(keys[:, kv_head] @ queries[head]))[:10]
        assert list(hits.positions) == list(best)
        found = np.frombuffer(hits.keys, np.float32).reshape(10, HEAD_DIM)
        np.testing.assert_array_equal(found, keys[best, kv_head])

    request.selection.max_error = 0.1
    with pytest.raises(grpc.RpcError) as refused:
        store.attention.Search(request, timeout=TIMEOUT_S)
    check_refused(refused.value, grpc.StatusCode.INVALID_ARGUMENT, "selection.max_error")


def test_appending_is_idempotent_and_refuses_other_content(store, session_id):
    keys, values, queries = random_tokens(1)
    first = store.append_request(session_id, 0, keys[:100], values[:100])
    other = store.append_request(session_id, 50, keys[:100], values[:100])
    gap = store.append_request(session_id, 101, keys[:5], values[:5])
    after = store.append_request(session_id, 100, keys[100:], values[100:])
    ok, again, conflict, hole, last = store.append(first, first, other, gap, after)
    assert (ok.error.code, again.error.code, again.watermark) == (0, 0, 100)
    check_refused(conflict.error, grpc.StatusCode.ALREADY_EXISTS)
    check_refused(hole.error, grpc.StatusCode.OUT_OF_RANGE, "begin_position", "100")
    assert (last.error.code, last.watermark) == (0, TOKENS)
    response = store.attention.Attend(
        store.attend_request(session_id, queries), timeout=TIMEOUT_S)
    check_answer(response.items[0], queries, keys, values)


def test_bad_numbers_and_counts_are_refused(store, session_id):
    keys, values, queries = random_tokens(2)
    spoiled = keys[:10].copy()
    spoiled[3, 1, 5] = np.nan
    infinite = values[:10].copy()
    infinite[9, 0, 0] = np.inf
    too_many = np.zeros((16385, KV_HEADS, HEAD_DIM), np.float32)
    nan_key, infinite_value, short, over = store.append(
        store.append_request(session_id, 0, spoiled, values[:10]),
        store.append_request(session_id, 0, keys[:10], infinite),
        store.append_request(session_id, 0, keys[:10], values[:9]),
        store.append_request(session_id, 0, too_many, too_many[..., :VALUE_DIM]))
    check_refused(nan_key.error, grpc.StatusCode.INVALID_ARGUMENT, "keys")
    check_refused(infinite_value.error, grpc.StatusCode.INVALID_ARGUMENT, "values")
    check_refused(short.error, grpc.StatusCode.INVALID_ARGUMENT, "values")
    check_refused(over.error, grpc.StatusCode.RESOURCE_EXHAUSTED, "append_tokens_max")
    described = store.sessions.Describe(
        store.message("DescribeRequest", session_id=session_id), timeout=TIMEOUT_S)
    assert described.watermark == 0, "a refused batch left something behind"

    queries[0, 0] = np.nan
    response = store.attention.Attend(
        store.attend_request(session_id, queries), timeout=TIMEOUT_S)
    check_refused(response.items[0].error, grpc.StatusCode.INVALID_ARGUMENT, "queries")


def test_sessions_are_told_apart(store, session_id):
    with pytest.raises(grpc.RpcError) as refused:
        store.open(session_id, head_dim=HEAD_DIM * 2)
    check_refused(refused.value, grpc.StatusCode.FAILED_PRECONDITION, "head_dim")
    store.open(session_id)  # the same again is no error
    with pytest.raises(grpc.RpcError) as unknown:
        store.sessions.Describe(
            store.message("DescribeRequest", session_id="nobody"), timeout=TIMEOUT_S)
    check_refused(unknown.value, grpc.StatusCode.NOT_FOUND, "session_id")


def run_against(address):
    """Every test of this file against a store that is running."""
    store = Store(address)
    tests = [test for name, test in sorted(globals().items()) if name.startswith("test_")]
    for test in tests:
        arguments = [store]
        if "session_id" in test.__code__.co_varnames[:test.__code__.co_argcount]:
            arguments.append(store.open(f"reflection-{uuid.uuid4().hex}").session_id)
        test(*arguments)
        for name in arguments[1:]:
            store.sessions.Close(store.message("CloseRequest", session_id=name), timeout=TIMEOUT_S)
        print(f"ok {test.__name__}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run_against(sys.argv[1])
