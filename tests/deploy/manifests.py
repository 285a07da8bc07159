"""The overlays of deploy/kustomize as kubectl renders them, and ways to find things in them."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUSTOMIZE = ROOT / "deploy/kustomize"
OVERLAYS = sorted(p.name for p in (KUSTOMIZE / "overlays").iterdir())
BIN = Path(os.environ.get("ATTIC_BIN", ROOT / "build/release/bin"))
POD_OWNERS = ("StatefulSet", "Deployment")

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def tool(name):
    """The program's path. The calling test is skipped, with the reason, where there is none."""
    path = ROOT / "build/tools" / name
    path = str(path) if path.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"not run: no {name} on this machine (tests/deploy/fetch_tools.py)")
    return path


@functools.cache
def rendered_text(overlay):
    answer = subprocess.run(
        [tool("kubectl"), "kustomize", KUSTOMIZE / "overlays" / overlay],
        capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "deprecated" not in answer.stderr, answer.stderr
    return answer.stdout


def render(overlay):
    """All objects of an overlay."""
    return [item for item in yaml.safe_load_all(rendered_text(overlay)) if item]


def of_kind(overlay, *kinds):
    return [item for item in render(overlay) if item["kind"] in kinds]


def named(overlay, kind, name):
    found = [item for item in of_kind(overlay, kind) if item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind} {name}"
    return found[0]


def name_of(item):
    return f"{item['kind']}/{item['metadata']['name']}"


def pod_owners(overlay):
    return of_kind(overlay, *POD_OWNERS)


def pod_of(owner):
    return owner["spec"]["template"]["spec"]


def pod_labels(owner):
    return owner["spec"]["template"]["metadata"]["labels"]


def containers(overlay):
    """(owner, container) of every container, those that only prepare included."""
    for owner in pod_owners(overlay):
        pod = pod_of(owner)
        for container in pod["containers"] + pod.get("initContainers", []):
            yield owner, container


def selects(selector, labels):
    """Whether a LabelSelector of matchLabels alone selects these labels."""
    assert set(selector) <= {"matchLabels"}, selector
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())


def selected_owners(overlay, selector):
    return [owner for owner in pod_owners(overlay) if selects(selector, pod_labels(owner))]


def argument(container, flag):
    """The value of --flag=value in a container's arguments; it must be there once."""
    values = [a.split("=", 1)[1] for a in container["args"] if a.startswith(flag + "=")]
    assert len(values) == 1, f"{flag}: {values}"
    return values[0]


def bytes_of(quantity):
    """Bytes of a quantity of Kubernetes (4Gi) or of Attic (4GiB)."""
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi|Ti)B?", quantity).groups()
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[unit]
