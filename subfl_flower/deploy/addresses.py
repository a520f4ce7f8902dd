"""Hosts and ports as they are given on the command line."""

import ipaddress
import re

from subfl_flower.errors import SubflError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_DNS_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


def ip_address(host: str) -> IPAddress | None:
    """The address that `host` spells out; `None` for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_host(host: str, option: str) -> str:
    """`host`, a DNS name of at most 253 characters, or the usual spelling of an IP address.

    Raises:
        SubflError: it is neither.
    """
    if (address := ip_address(host)) is not None:
        return str(address)
    if len(host) > 253 or not _DNS_NAME.fullmatch(host) or _looks_like_ip(host):
        raise SubflError(f"{option} {host}: it must be a DNS name or an IP address, without scheme and port")
    return host


def _looks_like_ip(host: str) -> bool:
    """True if the last part of `host` is a number: such a name cannot be resolved, it is a mistyped IPv4 address."""
    return host.rpartition(".")[2].isdigit()


def split_address(address: str, option: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets.

    Raises:
        SubflError: it is not of this form.
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    inner = host[1:-1] if bracketed else host
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535) or (":" in inner) != bracketed:
        raise SubflError(f"{option} {address}: it must be HOST:PORT, such as superlink.example.org:8000 or [::1]:8000")
    return check_host(inner, option), int(port)


def is_loopback(host: str) -> bool:
    """True if `host` reaches this machine alone."""
    address = ip_address(host)
    return host == "localhost" if address is None else address.is_loopback


def require_loopback(host: str, option: str) -> None:
    """Refuse to leave out encryption on a network.

    Raises:
        SubflError: `host` is not a loopback address.
    """
    if not is_loopback(host):
        raise SubflError(
            f"--insecure with {option} {host}: without TLS everyone on the way reads and alters models and code, so it "
            "is allowed for localhost, 127.0.0.1 and ::1 only"
        )
