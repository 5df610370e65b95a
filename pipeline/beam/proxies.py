"""Connections to this machine and to an engine's host without a proxy."""

import os

HERE = ("localhost", "127.0.0.1", "::1")
"""Names of this machine, at which an engine and its workers talk to each other."""
EXCEPTIONS = ("no_grpc_proxy", "no_proxy", "NO_PROXY")
"""Environment variables that list hosts without a proxy; which one counts depends on the program."""


def bypass_proxies(*hosts: str) -> None:
    """Add hosts to those without a proxy, in the environment of this process and its children.

    gRPC otherwise connects through `http_proxy`, `https_proxy` or `grpc_proxy`, and waits forever.

    Args:
        hosts: hosts that can be reached directly.
    """
    default = next(filter(None, map(os.environ.get, EXCEPTIONS)), "")
    for name in EXCEPTIONS:
        listed = [host.strip() for host in (os.environ.get(name) or default).split(",")]
        missing = [host for host in hosts if host not in listed and "*" not in listed]
        os.environ[name] = ",".join(filter(None, [*listed, *missing]))
