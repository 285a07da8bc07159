"""Where and when a report was made."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

COMMIT_FILE = "programs/commit.txt"  # of the programs that were measured
SOURCES = ("attention", "api", "base", "server", "tests/bench", "CMakeLists.txt", "cmake")


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit(root):
    """The commit, and whether the measured sources differ from it."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)

    name = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", *SOURCES).returncode
    return f"{name} and changes" if name and changed else name or "unknown"


def describe_machine(root, results):
    """Facts for the head of a report about the results in a folder."""
    kept = results / COMMIT_FILE
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": kept.read_text() if kept.exists() else commit(root),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
    }
