"""The flag tables of docs/reference.md say what the servers' --help says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("ATTIC_BIN", ROOT / "build/release/bin"))


def flags_of_help(server):
    """{flag: default, or None where --help states none}"""
    text = subprocess.run(
        [BIN / server, "--help"], check=True, capture_output=True, text=True).stdout
    flags = re.findall(r"^ +(--[\w-]+)(?: [A-Z]+(?::[^=(\n]*)?=(\S+))?", text, re.MULTILINE)
    return {flag: default or None for flag, default in flags if flag != "--help"}


def flags_of_reference(server):
    # Each after a line of its own such as "`attic-store` in a cluster:".
    text = (ROOT / "docs/reference.md").read_text()
    tables = re.findall(rf"^`{server}`[^\n|]*:\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    return dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]+?) \|", "".join(tables), re.MULTILINE))


@pytest.mark.parametrize("server", ["attic-store", "attic-worker"])
def test_the_reference_lists_the_flags(server):
    help_flags, reference_flags = flags_of_help(server), flags_of_reference(server)
    assert help_flags.keys() == reference_flags.keys()
    stated = {flag: default for flag, default in help_flags.items() if default}
    assert stated == {flag: reference_flags[flag] for flag in stated}
