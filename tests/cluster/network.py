"""Hosts on one machine: network namespaces with an address each, joined by a router.

A link is cut by a black hole in the router: packets of one host to another vanish, connections stay
open. Needs root; nothing outside the namespaces is touched.
"""

import itertools
import os
import subprocess

_networks = itertools.count()


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def available():
    """Why there can be no such network here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"attic{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"no network namespaces: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return None


class Network:
    """Not thread-safe. close() removes everything."""

    def __init__(self):
        number = next(_networks)
        self._name = f"attic{os.getpid()}n{number}"
        self._router = f"{self._name}router"
        self._subnet = 100 + number % 100
        self._hosts = {}
        self._cut = set()
        _ip("netns", "add", self._router)
        _ip("-n", self._router, "link", "set", "lo", "up")
        self.run_in(self._router, ["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)

    @staticmethod
    def run_in(namespace, command, **options):
        return subprocess.run(["ip", "netns", "exec", namespace, *command], **options)

    def add_host(self, host):
        """Returns the address of a new host."""
        number = len(self._hosts) + 1
        namespace = f"{self._name}{host}"
        prefix = f"10.{self._subnet}.{number}"
        _ip("netns", "add", namespace)
        self._hosts[host] = (namespace, f"{prefix}.2")
        _ip("link", "add", "eth0", "netns", namespace, "type", "veth",
            "peer", "name", f"to{number}", "netns", self._router)
        for where, device, address in ((namespace, "eth0", f"{prefix}.2/24"),
                                       (self._router, f"to{number}", f"{prefix}.1/24")):
            _ip("-n", where, "address", "add", address, "dev", device)
            _ip("-n", where, "link", "set", device, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "route", "add", "default", "via", f"{prefix}.1")
        return f"{prefix}.2"

    def address(self, host):
        return self._hosts[host][1]

    def command(self, host, command):
        """The command line that runs a command on a host."""
        return ["ip", "netns", "exec", self._hosts[host][0], *map(str, command)]

    def cut(self, sender, receiver):
        """From now on nothing that one host sends reaches the other."""
        if (sender, receiver) in self._cut:
            return
        self._cut.add((sender, receiver))
        _ip("-n", self._router, "rule", "add", "from", self.address(sender),
            "to", self.address(receiver), "blackhole")
        self._forget_routes()

    def cut_both(self, one, other):
        self.cut(one, other)
        self.cut(other, one)

    def heal(self):
        for sender, receiver in self._cut:
            _ip("-n", self._router, "rule", "del", "from", self.address(sender),
                "to", self.address(receiver), "blackhole")
        self._cut.clear()
        self._forget_routes()

    def _forget_routes(self):
        _ip("-n", self._router, "route", "flush", "cache")

    def close(self):
        for namespace, _ in self._hosts.values():
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self._router], check=False, capture_output=True)
        self._hosts.clear()
