"""The sizing table of deploy/README.md is what deploy/sizing.py prints, and rests on figures that
other documents and manifests state."""

import importlib.util
import re
import subprocess
import sys

import pytest
import yaml
from manifests import ROOT, bytes_of, named, pod_of

spec = importlib.util.spec_from_file_location("sizing", ROOT / "deploy/sizing.py")
sizing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sizing)

README = (ROOT / "deploy/README.md").read_text()


def printed(*flags):
    return subprocess.run(
        [sys.executable, ROOT / "deploy/sizing.py", *flags], check=True, capture_output=True,
        text=True).stdout


def test_readme_shows_the_table():
    shown = re.search(r"<!-- sizing: begin -->\n(.*)<!-- sizing: end -->", README, re.DOTALL)
    assert shown.group(1) == printed()


def test_bytes_of_a_token_by_hand():
    """Llama-3-8B: 32 layers, each with 8 heads, each with a key and a value of 128 * 2 bytes."""
    assert sizing.bytes_per_token(sizing.MODELS[0]) == 32 * 8 * (256 + 256) == 128 * 1024


def test_stores_hold_the_load_when_a_zone_is_lost():
    for model in sizing.MODELS:
        for tokens, sessions in sizing.LOADS:
            total = sizing.bytes_of(model, tokens, sessions)
            nodes = sizing.nodes_for(total)
            left = nodes - nodes // sizing.ZONES
            assert nodes % sizing.ZONES == 0
            assert 1.1 * total / left <= 192 * 2**30
            # And there are not many more than that takes.
            assert nodes <= sizing.ZONES or 1.3 * total / (left - 2) > 192 * 2**30


def test_index_is_no_more_than_is_assumed():
    report = (ROOT / "README.md").read_text()
    shares = re.search(r"\| sums, codes and graph.*\|", report).group()
    values = [float(share) for share in re.findall(r"([\d.]+)%", shares)]
    values += [float(re.search(r"^total .* ([\d.]+)%$", report, re.MULTILINE).group(1)) - 100]
    assert len(values) == 4
    assert max(values) <= (sizing.INDEX - 1) * 100
    assert f"{min(values[:3])}% to {max(values[:3])}%" in README


def test_latency_of_vectors_on_disk_is_the_measured_one():
    row = re.search(r"^\| 4 times as large \|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    beside_memory = float(row.group().split("|")[5])
    assert f"{beside_memory:.1f} times as long" in README
    assert sizing.DISK_FACTOR == 4


def test_stores_are_those_of_the_production_overlay():
    container = pod_of(named("production", "StatefulSet", "attic-store"))["containers"][0]
    maps = named("production", "ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"]
    assert bytes_of(maps["MEMORY_LIMIT"]) == sizing.MEMORY_LIMIT_GIB << 30
    assert int(maps["CLUSTER_REPLICAS"]) == sizing.REPLICAS
    pod_bytes = bytes_of(container["resources"]["limits"]["memory"])
    assert pod_bytes * sizing.MEMORY_LIMIT_SHARE == sizing.MEMORY_LIMIT_GIB << 30


def test_one_load_by_flags():
    text = printed("--layers", "32", "--kv-heads", "8", "--head-dim", "128", "--tokens", "131072",
                   "--users", "100")
    row = sizing.row(sizing.MODELS[0], 131_072, 100)
    nodes = [cell.strip() for cell in row.split("|")][6:8]
    assert re.findall(r"^stores .*: (\d+)$", text, re.MULTILINE) == nodes


@pytest.mark.parametrize("overlay", ["production"])
def test_readme_names_what_is_of_one_site(overlay):
    text = yaml.safe_dump_all([named(overlay, "StatefulSet", "attic-store"),
                               named(overlay, "Deployment", "attic-worker"),
                               named(overlay, "NetworkPolicy", "attic-store-etcd"),
                               named(overlay, "NetworkPolicy", "attic-store-metrics"),
                               named(overlay, "Certificate", "attic-etcd-client")])
    section = README.split("## Production")[1].split("### Processors")[0]
    for value in ("registry.example/attic", "registry.example/attic-cuda", "192.0.2.0/28",
                  "etcd-client-ca", "local-nvme", "attic-models", "monitoring"):
        assert value in text and f"`{value}`" in section, value
