"""attic demo end to end on a short text: right answers, and no process left behind."""

import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ATTIC = Path(os.environ.get("ATTIC_BIN", ROOT / "build/release/bin")) / "attic"
TOKENS = 98304  # more than the store scans exactly, so that the index answers
QUESTIONS = 4
KEYS = {
    "tokens", "questions", "correct_retrieval", "correct_exact", "output_error_median",
    "estimated_error_median", "coverage_median", "ms_per_token_retrieval", "ms_per_token_exact",
    "bytes_read_ratio",
}
TIMEOUT_S = 300
MARK = "ATTIC_DEMO_TEST"


class Demo:
    """A running demo whose processes are known by a mark in their environment."""

    def __init__(self, *arguments):
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [ATTIC, "demo", "--model", "model/recall", "--tokens", str(TOKENS),
             "--questions", str(QUESTIONS), "--json", *arguments],
            cwd=ROOT, env={**os.environ, name: value}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def command_lines(self):
        """Of every living process with the mark."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().decode())
            except OSError:
                continue  # ended meanwhile, or another user's
        return [line for line in found if line]

    def wait_for(self, binary):
        deadline = time.monotonic() + TIMEOUT_S
        while not any(binary in line for line in self.command_lines()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def wait_until_gone(self):
        """The kernel may take a moment to remove ended processes."""
        deadline = time.monotonic() + 5
        while self.command_lines() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.command_lines() == []


@pytest.fixture
def start_demo():
    demos = []

    def start(*arguments):
        demos.append(Demo(*arguments))
        return demos[-1]

    yield start
    for demo in demos:
        demo.process.kill()
        demo.process.communicate()


def test_every_needle_is_found(start_demo):
    demo = start_demo("--max-error", "0.05")
    output, errors = demo.process.communicate(timeout=TIMEOUT_S)
    assert demo.process.returncode == 0, errors
    report = json.loads(output)
    assert KEYS <= report.keys()
    assert report["tokens"] == TOKENS
    assert report["questions"] == QUESTIONS
    assert report["correct_retrieval"] == QUESTIONS
    assert report["correct_exact"] == QUESTIONS
    assert report["selection"] == {"max_error": 0.05}
    assert 0 <= report["output_error_median"] < 0.1
    assert 0 <= report["estimated_error_median"] < 0.1
    assert 0 < report["coverage_median"] <= 1
    assert report["ms_per_token_retrieval"] > 0
    assert report["ms_per_token_exact"] > 0
    assert report["reused_tokens_second_reader"] == (TOKENS - 1) // 256 * 256
    assert report["correct_second_reader"] == QUESTIONS
    assert report["appended_bytes_second_reader"] < report["appended_bytes"] / 100
    assert report["first_token_ratio"] > 3
    demo.wait_until_gone()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_behind(start_demo, end):
    demo = start_demo()
    demo.wait_for("attic-store")
    demo.wait_for("attic-worker")
    demo.process.send_signal(end)
    status = demo.process.wait(timeout=30)
    assert status == (-signal.SIGKILL if end == signal.SIGKILL else 128 + end)
    demo.wait_until_gone()


def test_a_text_that_is_not_there(start_demo):
    demo = start_demo("--text", "no/such/file.txt")
    output, errors = demo.process.communicate(timeout=TIMEOUT_S)
    assert demo.process.returncode != 0
    assert "no/such/file.txt" in errors and output == ""
    demo.wait_until_gone()
