"""The built attic-store's health and metrics addresses, and what Prometheus itself makes of them.

The tests with Prometheus run where it is installed. Debian's package starts a server of its own, so
./run does not install it.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

BUILD = Path(__file__).resolve().parents[2] / "build/release/bin"
BIN = Path(os.environ.get("ATTIC_BIN", BUILD))
TIMEOUT_S = 60

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="no Prometheus here")


class Process:
    """A server with its output in files, ended with its scope."""

    def __init__(self, folder, *command):
        self.log = folder / f"{Path(command[0]).name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(TIMEOUT_S)

    def wait_for(self, condition):
        """What `condition` returns once that is true; it is asked until then."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            if result := condition():
                return result
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The addresses of a running store, by name."""
    folder = tmp_path_factory.mktemp("store")
    with Process(folder, BIN / "attic-store", "--listen", "127.0.0.1:0", "--health-listen",
                 "0.0.0.0:0", "--metrics-listen", "localhost:0") as process:
        line = process.wait_for(
            lambda: re.search(r"event=ready .*\n", process.log.read_text()))
        yield dict(re.findall(r"(\w*address)=(\S+)", line.group()))


def get(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=TIMEOUT_S) as response:
        return response.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def attic(store, *arguments):
    subprocess.run([BIN / "attic", *arguments, "--server", store["address"]], check=True,
                   capture_output=True)


def test_health_is_told_without_being_the_store(store):
    port = store["health_address"].rsplit(":", 1)[1]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in "", "ready":
            request = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(request, timeout=TIMEOUT_S).status == 1
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary("/attic.v1.AdminService/GetStatus")(b"", timeout=TIMEOUT_S)
        assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metrics_are_text(store):
    attic(store, "status")
    text = get(store["metrics_address"], "/metrics")
    assert re.search(r'^attic_store_calls_total\{method="GetStatus",code="OK"\} [1-9]', text, re.M)
    for path in "/", "/metric", "/metrics/x":
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(store["metrics_address"], path)
        assert refused.value.code == 404


@pytest.mark.parametrize("flags, words", [
    (["--metrics-listen", "0.0.0.0:0"], ["metrics-listen", "--allow-insecure-remote"]),
    (["--metrics-listen", "{metrics_address}"], ["cannot listen on {metrics_address}"]),
    (["--health-listen", "{health_address}"], ["cannot listen on {health_address}"]),
    (["--health-listen", "nonsense"], ["health-listen", "nonsense"]),
])
def test_addresses_that_are_refused(store, flags, words):
    ended = subprocess.run(
        [BIN / "attic-store", "--listen", "127.0.0.1:0", *(f.format(**store) for f in flags)],
        capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ended.returncode == 1 and ended.stdout == ""
    assert all(word.format(**store) in ended.stderr for word in words), ended.stderr


@needs_prometheus
def test_promtool_finds_nothing_to_say(store):
    text = get(store["metrics_address"], "/metrics")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stderr == "", checked.stderr


@needs_prometheus
def test_prometheus_scrapes_the_store(store, tmp_path):
    attic(store, "status")
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{
            "job_name": "attic", "static_configs": [{"targets": [store["metrics_address"]]}]}]}))
    address = f"127.0.0.1:{free_port()}"
    query = 'sum(attic_store_calls_total{job="attic",method="GetStatus",code="OK"})'

    def value():
        try:
            answer = get(address, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        except OSError:
            return None  # it is starting
        return [series["value"][1] for series in json.loads(answer)["data"]["result"]]

    with Process(tmp_path, "prometheus", f"--config.file={config}",
                 f"--web.listen-address={address}",
                 f"--storage.tsdb.path={tmp_path / 'data'}") as prometheus:
        assert int(prometheus.wait_for(value)[0]) >= 1
