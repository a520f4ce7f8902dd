"""Ports of this machine for Flower's processes."""

import socket

from subfl_flower.errors import SubflError


def free_port() -> int:
    """A port of this machine's loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free_port(host: str, port: int, option: str = "--port") -> None:
    """Refuse a port that is not available, before Flower's processes are started.

    Raises:
        SubflError: the port is taken, or `host` is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SubflError(f"{option} {port}: {host} cannot be listened on ({error.strerror}); choose another") from error
