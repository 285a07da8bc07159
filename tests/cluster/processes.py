"""Processes of a test: none outlives it."""

import ctypes
import signal
import subprocess
import threading
import time

READY_TIMEOUT_S = 60
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A running command; its output lines are kept."""

    def __init__(self, command, log, stdin=False, environment=None):
        self.command = [str(part) for part in command]
        self._log = open(log, "ab")
        self.log = log
        self.popen = subprocess.Popen(
            self.command, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
            preexec_fn=_die_with_parent)
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_line(self, start, timeout=READY_TIMEOUT_S):
        """The first line that begins with `start`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines:
                    if line.startswith(start):
                        return line
                left = deadline - time.monotonic()
                assert not self._ended and left > 0, (
                    f"{self.command}: no line '{start}'; see {self.log}:\n{self.log_tail()}")
                self._changed.wait(left)

    def log_tail(self, size=4000):
        self._log.flush()
        with open(self.log, errors="replace") as log:
            return log.read()[-size:]

    def write(self, line):
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def running(self):
        return self.popen.poll() is None

    def send(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout):
        """The exit status; all output has been read."""
        status = self.popen.wait(timeout)
        self._reader.join(timeout)
        return status

    def kill(self):
        if self.running():
            self.popen.kill()
        self.popen.wait()
        self._reader.join()
        self._log.close()
