"""Checks of a site's machine before its SuperNode starts, or when it does not connect."""

from __future__ import annotations

import http.client
import platform
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from subfl_flower.deploy.addresses import split_address
from subfl_flower.deploy.certificates import load_certificate
from subfl_flower.deploy.connections import require_answer
from subfl_flower.deploy.keys import check_private_key
from subfl_flower.deploy.processes import Credentials, check_clients, check_state
from subfl_flower.deploy.site_policy import read_policy
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import human_bytes
from subfl_flower.flower.fleet import REGISTERED, UNKNOWN_KEY, standing_of_key
from subfl_flower.trust.operator_key import fingerprint, read_operator_public_key

_SECONDS = 10.0
_AHEAD, _BEHIND = 5.0, 300.0
"""Seconds by which a node's clock may be ahead of the SuperLink's, or behind it, before Flower refuses its messages."""

_FREE_BYTES = 2**30
_FEW_DAYS = 14
_PACKAGES = ("flwr", "torch", "torch-geometric", "cryptography")


@dataclass(frozen=True)
class Site:
    """The site that is checked.

    Attributes:
        superlink: HOST:PORT.
        credentials: None without TLS.
        clients: the clients' folders.
        state: folder for the node's state; None: in the clients' folders.
        operator_keys: files of pinned public keys.
        policy: the policy's file.
    """

    superlink: str
    credentials: Credentials | None
    clients: Sequence[Path] = ()
    state: Path | None = None
    operator_keys: Sequence[Path] = ()
    policy: Path | None = None


def check_site(site: Site) -> bool:
    """Print a line for each check: ``ok`` with what was found, or ``FAILED`` with what to do.

    Checks that need the SuperLink are left out where it cannot be reached.

    Returns:
        True where none has failed.
    """
    sound = [_told("versions", _versions), _told("address", lambda: _address(site))]
    if reached := sound[-1]:
        sound.append(_told("certificate", lambda: _certificate(site)))
        reached = sound[-1]
    if reached:
        sound += [_told("clock", lambda: _clock(site)), _told("key", lambda: _key(site))]
    if site.operator_keys:
        sound.append(_told("operator", lambda: _operators(site)))
    if site.policy is not None:
        sound.append(_told("policy", lambda: _policy(site)))
    if site.clients or site.state:
        sound += [_told("folders", lambda: _folders(site)), _told("disk", lambda: _disk(site))]
    return all(sound)


def _told(name: str, check: Callable[[], str]) -> bool:
    try:
        text = check()
    except SubflError as error:
        print(f"FAILED  {name:12}{error}", flush=True)
        return False
    print(f"ok      {name:12}{text}", flush=True)
    return True


def _versions() -> str:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise SubflError(f"the package {name} is not installed; pip install subfl-flower") from None
    return ", ".join(f"{name} {number}" for name, number in found.items())


def _address(site: Site) -> str:
    host, port = split_address(site.superlink, "--superlink")
    require_answer(host, port, True, None)
    return f"{site.superlink} answers"


def _certificate(site: Site) -> str:
    if site.credentials is None:
        return "none: without TLS"
    host, port = split_address(site.superlink, "--superlink")
    root = site.credentials.root_certificates
    authority = load_certificate(root, "--root-certificates")
    require_answer(host, port, False, root)
    with socket.create_connection((host, port), timeout=_SECONDS) as connection:
        context = ssl.create_default_context(cafile=root)
        with context.wrap_socket(connection, server_hostname=host) as secured:
            shown = secured.getpeercert() or {}
    ends = {
        "the SuperLink's certificate": datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC),
        str(root): authority.not_valid_after_utc,
    }
    for whose, end in ends.items():
        if (end - datetime.now(UTC)).days < _FEW_DAYS:
            raise SubflError(f"{whose} ends on {end:%Y-%m-%d}; subfl deploy certificates renews it")
    return f"trusted by {root}, until {min(ends.values()):%Y-%m-%d}"


def _clock(site: Site) -> str:
    host, port = split_address(site.superlink, "--superlink")
    connection: http.client.HTTPConnection
    if site.credentials is None:
        connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    else:
        context = ssl.create_default_context(cafile=site.credentials.root_certificates)
        connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse().getheader("Date")
        here = time.time()
        there = parsedate_to_datetime(str(answer)).timestamp()
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        raise SubflError(f"the SuperLink does not tell its time ({error}); is it the right port?") from None
    finally:
        connection.close()
    ahead = here - there
    if not -_BEHIND < ahead < _AHEAD:
        word = "ahead of" if ahead > 0 else "behind"
        raise SubflError(
            f"this machine's clock is {abs(ahead):.0f} s {word} the SuperLink's, and Flower then refuses its messages "
            "(401); have NTP set both"
        )
    return f"within {max(1.0, abs(ahead)):.0f} s of the SuperLink's"


def _key(site: Site) -> str:
    if site.credentials is None:
        return "none: without authentication"
    key = site.credentials.key
    check_private_key(key)
    standing = standing_of_key(site.superlink, site.credentials.root_certificates, key)
    if standing == UNKNOWN_KEY:
        raise SubflError(
            f"{key} is not registered; the operator does that: subfl deploy register {key.name}.pub --connection NAME"
        )
    if standing != REGISTERED:
        raise SubflError(f"the SuperLink does not say if {key} is registered: {standing}")
    return f"{key} is registered"


def _operators(site: Site) -> str:
    return ", ".join(fingerprint(read_operator_public_key(path)) for path in site.operator_keys)


def _policy(site: Site) -> str:
    assert site.policy is not None
    policy = read_policy(site.policy)
    stated = policy.model_dump(exclude_defaults=True)
    return f"{site.policy} states {', '.join(stated) or 'nothing'}"


def _folders(site: Site) -> str:
    check_clients(site.clients)
    check_state(site.clients, site.state)
    return f"{len(site.clients)} clients are whole, and states can be written"


def _disk(site: Site) -> str:
    folders = [site.state] if site.state is not None else list(site.clients)
    try:
        free, folder = min((shutil.disk_usage(folder).free, str(folder)) for folder in folders)
    except OSError as error:
        raise SubflError(f"{error.filename}: {error.strerror}; it must be a folder") from None
    if free < _FREE_BYTES:
        raise SubflError(f"{folder}: {human_bytes(free)} are free; make at least {human_bytes(_FREE_BYTES)} free")
    return f"{human_bytes(free)} are free"
