"""The flag tables of the README say what the servers' --help says."""

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


def flags_of_readme(server):
    # Each after a line of its own such as "`attic-store` in a cluster:".
    tables = re.findall(
        rf"^`{server}`[^\n|]*:\n\n((?:\|.*\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    return dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]+?) \|", "".join(tables), re.MULTILINE))


@pytest.mark.parametrize("server", ["attic-store", "attic-worker"])
def test_readme_lists_the_flags(server):
    help_flags, readme_flags = flags_of_help(server), flags_of_readme(server)
    assert help_flags.keys() == readme_flags.keys()
    stated = {flag: default for flag, default in help_flags.items() if default}
    assert stated == {flag: readme_flags[flag] for flag in stated}
