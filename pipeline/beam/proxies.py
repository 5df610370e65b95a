"""Connections within this machine without a proxy."""

import os

HERE = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, at which an engine and its workers talk to each other."""
EXCEPTIONS = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
"""Environment variables that list hosts without a proxy; which one counts depends on the program."""


def bypass_proxies_here() -> None:
    """Add `HERE` to the hosts without a proxy, in the environment of this process and its children.

    gRPC otherwise connects to workers on this machine through `http_proxy`, and waits forever.
    """
    default = next(filter(None, map(os.environ.get, EXCEPTIONS)), "")
    for name in EXCEPTIONS:
        hosts = [host.strip() for host in (os.environ.get(name) or default).split(",")]
        missing = [host for host in HERE if host not in hosts and "*" not in hosts]
        os.environ[name] = ",".join(filter(None, [*hosts, *missing]))
