"""Attention per second with 1, 2 and 4 stores that share the cores, and what follows from the
measured parts for clusters of 8 to 256 machines: a calculation, not a measurement.

    python cluster_throughput.py [--json] [--quick]
"""

import argparse
import base64
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("ATTIC_BIN", ROOT / "build/release/bin"))
READY_TIMEOUT_S = 60
ROUNDS = 3
LEASE_S = 5
KEEPALIVES_PER_LEASE = 3
CLUSTER_SLOTS = 4096
WRITES_OF_A_START = 4  # of a node: lease, registration, what it has filled, and a map

# The machines of the calculation.
STORE_CORES = 64
CLIENT_CORES = 32
NETWORK_BYTES_PER_S = 25e9 / 8
NODES = (8, 16, 32, 64, 128, 256)
BATCH = 4  # sequences of one call, of the benchmark
KV_HEADS = 8


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Stores:
    """etcd, and stores that share the cores: each has its own, or where there are more stores than
    cores, one core with others. A thread for queries per core and store."""

    def __init__(self, count, folder, cores):
        self.processes = []
        self.etcd = f"127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.processes.append(subprocess.Popen(
            ["etcd", "--data-dir", folder / f"etcd{len(cores)}.{count}", "--logger", "zap",
             "--log-level", "error", "--listen-client-urls", f"http://{self.etcd}",
             "--advertise-client-urls", f"http://{self.etcd}", "--listen-peer-urls", peer,
             "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
            stderr=subprocess.DEVNULL))
        self.addresses = []
        for number in range(count):
            own = cores[number::count] or [cores[number % len(cores)]]
            process = subprocess.Popen(
                [BIN / "attic-store", "--listen", "127.0.0.1:0", "--cluster", "bench", "--node-id",
                 f"s{number}", "--cluster-etcd", self.etcd, "--lease-seconds", str(LEASE_S),
                 "--initial-nodes", str(count), "--threads", str(len(own)),
                 "--capacity", "1GiB"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                preexec_fn=lambda own=own: os.sched_setaffinity(0, own))
            self.processes.append(process)
            line = process.stdout.readline()
            self.addresses.append(re.search(r"ready on (\S+)", line).group(1))
        self.wait_until_live(count)

    def wait_until_live(self, count):
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            done = subprocess.run([BIN / "attic", "cluster", "status", "--json", "--server",
                                   ",".join(self.addresses)], capture_output=True, text=True)
            if done.returncode == 0:
                status = json.loads(done.stdout)
                live = [n for n in status["nodes"] if n["state"] == "live"]
                if len(live) == count and status["slots_moving"] == 0:
                    return
            time.sleep(0.1)
        sys.exit(f"{count} stores are no cluster after {READY_TIMEOUT_S} s")

    def attend(self, **options):
        command = [BIN / "cluster_attend", "--server", ",".join(self.addresses),
                   "--batch", str(BATCH), "--kv-heads", str(KV_HEADS)]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        return json.loads(done.stdout)

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


class Etcd:
    """etcd's HTTP gateway, over one connection."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address)

    def call(self, path, **message):
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in message.items()}
        self.connection.request("POST", f"/v3/kv/{path}", json.dumps(encoded))
        return json.loads(self.connection.getresponse().read())

    def puts_per_second(self):
        """Of one client that waits for each to be synced."""
        count = 500
        begin = time.monotonic()
        for number in range(count):
            self.call("put", key=f"bench{number % 10}", value="x" * 100)
        return count / (time.monotonic() - begin)

    def map_bytes(self):
        found = self.call("range", key="/attic/bench/map")
        return len(base64.b64decode(found["kvs"][0]["value"]))


# Stores, and the share of the machine's cores that they have together.
CONFIGURATIONS = {"1 of half": (1, 2), "1": (1, 1), "2": (2, 1), "4": (4, 1)}


def measure(quick):
    measured = {}
    tokens = 8192 if quick else 32768
    seconds = 1 if quick else 5
    all_cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for name, (count, divisor) in CONFIGURATIONS.items():
            cores = all_cores[:max(1, len(all_cores) // divisor)]
            stores = Stores(count, Path(folder), cores)
            try:
                rounds = [stores.attend(tokens=tokens, seconds=seconds, threads=4)
                          for _ in range(1 if quick else ROUNDS)]
                # Small questions show what calls cost beside attention.
                small = stores.attend(name="small", tokens=1024, seconds=seconds, sessions=2,
                                      threads=1, layers=1)
                measured[name] = {
                    key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                measured[name]["small_client_cpu_ms"] = small["client_cpu_ms_per_call"]
                measured[name]["small_median_ms"] = small["median_ms"]
                if count == 4:
                    etcd = Etcd(stores.etcd)
                    measured["map_bytes"] = etcd.map_bytes()
                    measured["etcd_puts_per_second"] = etcd.puts_per_second()
            finally:
                stores.close()
    return measured


def calculate(measured):
    """Sequences a second of one layer, over all clients, at which each part is used up."""
    cores = len(os.sched_getaffinity(0))
    one, four = measured["1"], measured["4"]
    per_core = one["sequences_per_second"] / cores
    # A call costs the client a part of its own and a part for every store it goes to.
    per_store_ms = max(0.0, (four["small_client_cpu_ms"] - one["small_client_cpu_ms"]) / 3)
    fixed_ms = one["small_client_cpu_ms"] - per_store_ms
    sequence_bytes = one["query_bytes_per_sequence"] + one["answer_bytes_per_sequence"]
    rows = []
    for nodes in NODES:
        fan_out = min(nodes, KV_HEADS * BATCH)  # stores that one call of one layer goes to
        client_cpu = CLIENT_CORES * 1e3 / (fixed_ms + per_store_ms * fan_out) * BATCH
        client_network = NETWORK_BYTES_PER_S / sequence_bytes
        stores = nodes * STORE_CORES * per_core
        # Two replicas of a slot, whose nodes take a byte more each from the 128th on.
        map_bytes = measured["map_bytes"] + (2 * CLUSTER_SLOTS if nodes > 127 else 0)
        rows.append({
            "nodes": nodes,
            "stores_cpu": stores,
            "stores_network": nodes * NETWORK_BYTES_PER_S / sequence_bytes,
            "one_client_cpu": client_cpu,
            "one_client_network": client_network,
            "clients_needed": stores / min(client_cpu, client_network),
            "etcd_keepalives_per_second": nodes * KEEPALIVES_PER_LEASE / LEASE_S,
            "start_s": nodes * WRITES_OF_A_START / measured["etcd_puts_per_second"],
            "map_change_ms": nodes * map_bytes / NETWORK_BYTES_PER_S * 1e3,
        })
    return rows


def print_report(measured, rows):
    print(f"{len(os.sched_getaffinity(0))} cores, of all stores together; 'of half': of half of "
          "them.\n\n"
          "   stores   sequences/s   of one store   median ms   p99 ms   client CPU ms a call")
    for name in CONFIGURATIONS:
        m = measured[name]
        ratio = m["sequences_per_second"] / measured["1"]["sequences_per_second"]
        print(f"{name:>9} {m['sequences_per_second']:13.1f} {ratio:14.2f} {m['median_ms']:11.2f} "
              f"{m['p99_ms']:8.2f} {m['client_cpu_ms_per_call']:22.3f}")
    print(f"\netcd: {measured['etcd_puts_per_second']:.0f} writes a second, one by one; the "
          f"cluster map has {measured['map_bytes'] / 1e3:.1f} KB")
    print(f"\nCalculated for machines of {STORE_CORES} cores (clients {CLIENT_CORES}) and "
          f"{NETWORK_BYTES_PER_S * 8 / 1e9:.0f} Gbit/s. Sequences a second of one layer that use "
          "up\n\n"
          " nodes   the stores' cores   their network   a client's cores   its network   clients"
          "   etcd: keepalives/s   all start, s   a map to all, ms")
    for r in rows:
        print(f"{r['nodes']:6} {r['stores_cpu']:19,.0f} {r['stores_network']:15,.0f} "
              f"{r['one_client_cpu']:18,.0f} {r['one_client_network']:13,.0f} "
              f"{r['clients_needed']:9.1f} {r['etcd_keepalives_per_second']:20.0f} "
              f"{r['start_s']:14.2f} {r['map_change_ms']:18.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    measured = measure(arguments.quick)
    rows = calculate(measured)
    if arguments.json:
        print(json.dumps({"measured": measured, "calculated": rows}))
    else:
        print_report(measured, rows)


if __name__ == "__main__":
    main()
