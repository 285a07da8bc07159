"""A cluster of real processes, each on a host of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from network import Network
from processes import Process

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("ATTIC_BIN", ROOT / "build/release/bin"))
STORE_PORT = 7400
ETCD_PORT = 2379
SETTLE_TIMEOUT_S = 90


class Cluster:
    """etcd and stores. Use as a context manager."""

    def __init__(self, stores, lease_s=2, slots=256, replace_after_s=3600, durable=False,
                 store_options=(), folder=None):
        self.folder = Path(folder or tempfile.mkdtemp(prefix="attic_cluster_"))
        self.network = Network()
        self.lease_s = lease_s
        self.stores = {}
        self.boot_ids = {}  # of the processes of now
        self._slots = slots
        self._initial_nodes = stores
        self._replace_after_s = replace_after_s
        self._durable = durable
        self._store_options = list(store_options)
        self.etcd = None
        self.network.add_host("etcd")
        self.network.add_host("client")
        self.network.add_host("client2")
        self.start_etcd()
        for number in range(stores):
            self.add_store(f"s{number}")
        self.wait_until_settled()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for process in [*self.stores.values(), self.etcd]:
            if process is not None:
                process.kill()
        self.network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- etcd ---

    @property
    def etcd_address(self):
        return f"{self.network.address('etcd')}:{ETCD_PORT}"

    def start_etcd(self):
        address = self.network.address("etcd")
        data = self.folder / "etcd"
        self.etcd = Process(self.network.command("etcd", [
            "etcd", "--name", "etcd", "--data-dir", data, "--logger", "zap",
            "--log-outputs", "stderr",
            "--listen-client-urls", f"http://{address}:{ETCD_PORT}",
            "--advertise-client-urls", f"http://{address}:{ETCD_PORT}",
            "--listen-peer-urls", f"http://{address}:2380",
            "--initial-advertise-peer-urls", f"http://{address}:2380",
            "--initial-cluster", f"etcd=http://{address}:2380"]), self.folder / "etcd.log")

    def wipe_etcd(self):
        """Stops etcd and forgets its data."""
        self.etcd.kill()
        shutil.rmtree(self.folder / "etcd")

    # --- stores ---

    def addresses(self):
        return ",".join(f"{self.network.address(name)}:{STORE_PORT}" for name in self.stores)

    def add_store(self, name):
        self.network.add_host(name)
        self.stores[name] = None
        self.start_store(name)

    def start_store(self, name):
        address = f"{self.network.address(name)}:{STORE_PORT}"
        command = [BIN / "attic-store", "--listen", address, "--allow-insecure-remote",
                   "--cluster", "test", "--node-id", name, "--cluster-etcd", self.etcd_address,
                   "--lease-seconds", self.lease_s, "--cluster-slots", self._slots,
                   "--initial-nodes", self._initial_nodes,
                   "--replace-after-seconds", self._replace_after_s, "--threads", 2,
                   "--capacity", "1GiB", *self._store_options]
        if self._durable:
            command += ["--data-dir", self.folder / name]
        self.stores[name] = Process(self.network.command(name, command),
                                    self.folder / f"{name}.log")
        ready = self.stores[name].wait_for_line("attic-store ready")
        self.boot_ids[name] = ready.rpartition("boot_id=")[2]

    def kill_store(self, name):
        self.stores[name].kill()

    def stop_store(self, name, timeout=60):
        """Drains it. Returns its exit status."""
        self.stores[name].send(signal.SIGTERM)
        return self.stores[name].wait(timeout)

    # --- what the cluster says ---

    def attic(self, *arguments, timeout=30, check=True):
        """Runs the command line tool on the client's host."""
        command = self.network.command("client", [BIN / "attic", *arguments])
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=check)

    def status(self):
        """What `attic cluster status --json` says, or None when no store answers."""
        done = self.attic("cluster", "status", "--json", "--server", self.addresses(), check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait_until(self, condition, timeout=SETTLE_TIMEOUT_S, what="the cluster to settle",
                   steady_s=0, poll_s=0.1):
        """Returns the status for which condition(status) is true, and stays so for `steady_s`, and
        the seconds until it was. Each look, every `poll_s`, is a process."""
        begin = time.monotonic()
        since = None
        while time.monotonic() < begin + timeout:
            status = self.status()
            now = time.monotonic()
            if status is None or not condition(status):
                since = None
            elif since is None:
                since = now
            if since is not None and now >= since + steady_s:
                return status, since - begin
            time.sleep(poll_s)
        raise AssertionError(f"waited {timeout} s for {what}: {json.dumps(status)}; logs in "
                             f"{self.keep_logs()}")

    def settled(self, status):
        """Every store is there, knows the newest map and holds what it should; nothing moves."""
        live = {node["id"]: node["boot_id"] for node in status["nodes"]
                if node["state"] == "live" and node.get("epoch") == status["epoch"]}
        return live == self.boot_ids and status["slots_moving"] == 0

    def wait_until_settled(self, timeout=SETTLE_TIMEOUT_S, **options):
        return self.wait_until(self.settled, timeout, **options)

    def wait_until_read(self, session, timeout=900):
        """Returns when a session has tokens, gets no more, and all are indexed."""
        deadline = time.monotonic() + timeout
        before = None
        while time.monotonic() < deadline:
            described = self.attic("sessions", "describe", session, "--json", "--server",
                                   self.addresses(), check=False)
            if described.returncode == 0:
                watermark = json.loads(described.stdout)["watermark"]
                if watermark > 0 and watermark == before and self.pending_segments() == 0:
                    return
                before = watermark
            time.sleep(0.2)
        raise AssertionError(f"waited {timeout} s for {session}; logs in {self.keep_logs()}")

    def wait_until_indexed(self, timeout=SETTLE_TIMEOUT_S):
        """Returns when no store has a segment to build."""
        deadline = time.monotonic() + timeout
        while (pending := self.pending_segments()) != 0:
            assert time.monotonic() < deadline, (
                f"{pending} segments wait; logs in {self.keep_logs()}")
            time.sleep(1)

    def pending_segments(self):
        """Of all stores; None if they do not say."""
        status = self.attic("status", "--json", "--server", self.addresses(), check=False)
        return json.loads(status.stdout)["pending_segments"] if status.returncode == 0 else None

    def keep_logs(self):
        kept = Path(tempfile.mkdtemp(prefix="attic_cluster_logs_"))
        for log in self.folder.glob("*.log"):
            shutil.copy(log, kept)
        return kept


class Load:
    """cluster_load on a host of its own; see cluster_load.cc."""

    def __init__(self, cluster, *options, host="client", name="load", log_name=None):
        self.process = Process(
            cluster.network.command(host, [BIN / "cluster_load", "--server", cluster.addresses(),
                                           "--prefix", name, *options]),
            cluster.folder / f"{log_name or name}.log", stdin=True)
        self._cluster = cluster
        self.process.wait_for_line("loaded", timeout=120)

    def go(self):
        """Of a load that waits."""
        self.process.write("go")

    def mark(self, name):
        self.process.write(f"mark {name}")

    def finish(self, timeout=120):
        """Its report."""
        if self.process.running():
            self.process.write("end")
        status = self.process.wait(timeout)
        report = [line for line in self.process.lines if line.startswith("{")]
        assert report, (status, self.process.log_tail(), self._cluster.keep_logs())
        return json.loads(report[-1])

    def close(self):
        self.process.kill()


def totals(report, name=None):
    """Sums over intervals, of one name or all."""
    sums = {"reads": 0, "writes": 0, "read_failures": 0, "write_failures": 0, "wrong": 0,
            "read_longest_ms": 0.0, "write_longest_ms": 0.0, "errors": {}, "wrong_examples": []}
    for interval in report["intervals"]:
        if name is not None and interval["name"] != name:
            continue
        for key in ("reads", "writes", "read_failures", "write_failures", "wrong"):
            sums[key] += interval[key]
        for key in ("read_longest_ms", "write_longest_ms"):
            sums[key] = max(sums[key], interval[key])
        for error, count in interval["errors"].items():
            sums["errors"][error] = sums["errors"].get(error, 0) + count
        sums["wrong_examples"] += interval["wrong_examples"]
    return sums


def log(text):
    print(text, file=sys.stderr, flush=True)
