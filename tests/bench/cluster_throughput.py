"""Attention per second with 1, 2 and 4 stores that share the cores, and what follows from the
measured parts for clusters of 8 to 256 machines: a calculation, not a measurement.

    python cluster_throughput.py [--json] [--quick]
"""

import argparse
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
    """etcd, and stores pinned to the same cores, one thread for queries each per core and store."""

    def __init__(self, count, folder):
        self.processes = []
        self.etcd = f"127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.processes.append(subprocess.Popen(
            ["etcd", "--data-dir", folder / f"etcd{count}", "--logger", "zap", "--log-level",
             "error", "--listen-client-urls", f"http://{self.etcd}", "--advertise-client-urls",
             f"http://{self.etcd}", "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
             peer, "--initial-cluster", f"default={peer}"], stderr=subprocess.DEVNULL))
        cores = sorted(os.sched_getaffinity(0))
        self.addresses = []
        for number in range(count):
            process = subprocess.Popen(
                [BIN / "attic-store", "--listen", "127.0.0.1:0", "--cluster", "bench", "--node-id",
                 f"s{number}", "--cluster-etcd", self.etcd, "--lease-seconds", str(LEASE_S),
                 "--initial-nodes", str(count), "--threads", str(max(1, len(cores) // count)),
                 "--capacity", "1GiB"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cores))
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


def etcd_puts_per_second(address):
    """As etcd's own tool measures it: sequential writes of one client, synced."""
    environment = {**os.environ, "ETCDCTL_API": "3"}
    begin = time.monotonic()
    count = 100
    for number in range(count):
        subprocess.run(["etcdctl", "--endpoints", address, "put", f"bench{number}", "x"],
                       check=True, capture_output=True, env=environment)
    return count / (time.monotonic() - begin)


def measure(quick):
    measured = {}
    tokens = 8192 if quick else 65536
    seconds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2, 4):
            stores = Stores(count, Path(folder))
            try:
                rounds = [stores.attend(tokens=tokens, seconds=seconds, sessions=2)
                          for _ in range(1 if quick else ROUNDS)]
                # Small questions show what calls cost beside attention.
                small = stores.attend(tokens=1024, seconds=seconds, sessions=2, threads=1,
                                      layers=1)
                measured[count] = {
                    key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
                measured[count]["small_client_cpu_ms"] = small["client_cpu_ms_per_call"]
                measured[count]["small_median_ms"] = small["median_ms"]
                if count == 4 and subprocess.run(["which", "etcdctl"],
                                                 capture_output=True).returncode == 0:
                    measured["etcd_puts_per_second"] = etcd_puts_per_second(stores.etcd)
            finally:
                stores.close()
    return measured


def calculate(measured):
    """Sequences a second of one layer, over all clients, at which each part is used up."""
    cores = len(os.sched_getaffinity(0))
    one, four = measured[1], measured[4]
    per_core = one["sequences_per_second"] / cores
    # A call costs the client a part of its own and a part for every store it goes to.
    per_store_ms = max(0.0, (four["small_client_cpu_ms"] - one["small_client_cpu_ms"]) / 3)
    fixed_ms = one["small_client_cpu_ms"] - per_store_ms
    sequence_bytes = one["query_bytes_per_sequence"] + one["answer_bytes_per_sequence"]
    rows = []
    for nodes in NODES:
        fan_out = min(nodes, KV_HEADS * BATCH)  # stores that one call of one layer goes to
        client_ms = fixed_ms + per_store_ms * fan_out
        stores = nodes * STORE_CORES * per_core
        rows.append({
            "nodes": nodes,
            "stores_cpu": stores,
            "stores_network": nodes * NETWORK_BYTES_PER_S / sequence_bytes,
            "one_client_cpu": CLIENT_CORES * 1e3 / client_ms * BATCH,
            "one_client_network": NETWORK_BYTES_PER_S / sequence_bytes,
            "clients_needed": stores / min(CLIENT_CORES * 1e3 / client_ms * BATCH,
                                           NETWORK_BYTES_PER_S / sequence_bytes),
            "etcd_keepalives_per_second": nodes * KEEPALIVES_PER_LEASE / LEASE_S,
            "map_kilobytes": (CLUSTER_SLOTS * 12 + nodes * 80) / 1e3,
            "map_change_megabytes": nodes * (CLUSTER_SLOTS * 12 + nodes * 80) / 1e6,
        })
    return rows


def print_report(measured, rows):
    print("stores   sequences/s   of one store   median ms   p99 ms   client CPU ms a call")
    for count in (1, 2, 4):
        m = measured[count]
        ratio = m["sequences_per_second"] / measured[1]["sequences_per_second"]
        print(f"{count:6} {m['sequences_per_second']:13.1f} {ratio:14.2f} {m['median_ms']:11.2f} "
              f"{m['p99_ms']:8.2f} {m['client_cpu_ms_per_call']:22.3f}")
    if "etcd_puts_per_second" in measured:
        print(f"\netcd: {measured['etcd_puts_per_second']:.0f} writes a second, one by one")
    print(f"\nCalculated for machines of {STORE_CORES} cores (clients {CLIENT_CORES}) and "
          f"{NETWORK_BYTES_PER_S * 8 / 1e9:.0f} Gbit/s; sequences a second of one layer:\n\n"
          " nodes   stores' cores   stores' network   one client's cores   its network   clients   "
          "etcd keepalives/s   MB of maps a change")
    for r in rows:
        print(f"{r['nodes']:6} {r['stores_cpu']:15,.0f} {r['stores_network']:17,.0f} "
              f"{r['one_client_cpu']:20,.0f} {r['one_client_network']:13,.0f} "
              f"{r['clients_needed']:9.1f} {r['etcd_keepalives_per_second']:19.0f} "
              f"{r['map_change_megabytes']:21.1f}")


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
