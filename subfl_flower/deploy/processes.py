"""Flower's long-running processes of a federation: their command lines, checked before they start."""

import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from subfl_flower.deploy.addresses import require_loopback, split_address
from subfl_flower.deploy.certificates import (
    CA_CERTIFICATE,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    check_certificates,
    load_certificate,
)
from subfl_flower.deploy.files import make_folder, read_file
from subfl_flower.deploy.keys import check_private_key
from subfl_flower.errors import SubflError
from subfl_flower.flower.ports import free_port, require_free_port
from subfl_flower.flower.programs import (
    LOCAL_HOSTS,
    PROXY_EXCEPTIONS,
    SETTINGS,
    WARM_SUPERNODE,
    flower_environment,
    program,
    scripts_folder,
)
from subfl_flower.flower.superlink import superlink_line
from subfl_flower.installed import optional_module, require_installed
from subfl_flower.server.monitoring.metrics import METRICS
from subfl_flower.wire.roster import MATCHER

_LOCAL = "127.0.0.1"
_NOT_IN_A_PATH = frozenset(',"\\')


def superlink_command(certificates: Path | None, host: str, port: int, database: Path | None) -> list[str]:
    """The command line of a SuperLink.

    Args:
        certificates: folder with `ca.crt`, `server.crt` and `server.key`; `None` means neither TLS nor
            authentication of SuperNodes, which is allowed on loopback addresses only.
        host: address to listen on.
        port: one port for SuperNodes, for `flwr` and for the process that runs the ServerApp.
        database: SQLite file for nodes and runs; `None` keeps them in memory.

    Raises:
        SubflError: a certificate is not valid for `host`, or the port is taken.
    """
    command = superlink_line(host, port, "--disable-runtime-dependency-installation")
    if certificates is None:
        require_loopback(host, "--host")
        command += ["--insecure"]
    else:
        check_certificates(certificates, host)
        folder = certificates.resolve()
        command += ["--ssl-ca-certfile", str(folder / CA_CERTIFICATE)]
        command += ["--ssl-certfile", str(folder / SERVER_CERTIFICATE), "--ssl-keyfile", str(folder / SERVER_KEY)]
        command += ["--enable-supernode-auth"]
    if database is not None:
        if not database.resolve().parent.is_dir():
            raise SubflError(f"--database {database}: its folder does not exist; make it first")
        command += ["--database", str(database.resolve())]
    require_free_port(host, port)
    return command


@dataclass(frozen=True)
class Credentials:
    """Certificate and key by which a SuperNode and its SuperLink authenticate each other.

    `root_certificates` is the certificate of the authority that signed the SuperLink's, `key` the node's private
    key.
    """

    root_certificates: Path
    key: Path


def supernode_command(
    superlink: str,
    credentials: Credentials | None,
    clients: Sequence[Path],
    state: Path | None,
    port: int,
    matcher_key: str | None = None,
    keep_embeddings: bool = False,
    allow_packages: Sequence[str] = (),
    warm: bool | None = None,
    gated: bool = False,
    epsilon_limit: float | None = None,
    match_bounds: Mapping[str, int] | None = None,
) -> list[str]:
    """The command line of a SuperNode that hosts the clients in the given folders, or of the matcher.

    Args:
        superlink: HOST:PORT of the SuperLink.
        credentials: `None` means neither TLS nor authentication, which is allowed on loopback addresses only.
        clients: the clients' folders; each is opened and checked. None makes the node the matcher of a graph expansion.
        state: folder for the state that stays on the node between messages; None keeps it with the data. The matcher
            needs one.
        matcher_key: the only public key that the clients seal to, 64 hexadecimal digits; None: the server's.
        keep_embeddings: never tell the server an embedding to cluster users by.
        allow_packages: installed packages, besides this project's own, whose classes a run's configuration may name.
        port: of this machine's loopback interface, for the processes that run the ClientApp; 0 finds a free one.
        warm: fork the process of a message from one that has imported PyTorch; False starts a program for each, as
            Flower does; None: True where a fork is possible, which is on Linux.
        gated: messages pass the site's gate, which stands in this package's processes alone.
        epsilon_limit: largest epsilon of all uploads of a client's data, in all runs together; None: no limit.
        match_bounds: the matcher's bounds by name, ``least-users``, ``least-common`` and ``most-users``.

    Raises:
        SubflError: an address, a certificate, a key or a folder is not usable, the port is taken, or a fork is asked
            for and not possible.
    """
    host, _ = split_address(superlink, "--superlink")
    command = [*_supernode_program(warm, gated), "--superlink", superlink]
    if credentials is None:
        require_loopback(host, "--superlink")
        command += ["--insecure"]
    else:
        load_certificate(credentials.root_certificates, "--root-certificates")
        check_private_key(credentials.key)
        command += ["--root-certificates", str(credentials.root_certificates.resolve())]
        command += ["--auth-supernode-private-key", str(credentials.key.resolve())]
    command += [
        "--node-config",
        node_config(clients, state, matcher_key, keep_embeddings, allow_packages, epsilon_limit, match_bounds),
    ]
    check_clients(clients)
    check_state(clients, state)
    if port:
        require_free_port(_LOCAL, port)
    return [*command, "--host", _LOCAL, "--port", str(port or free_port())]


def _supernode_program(warm: bool | None, gated: bool) -> list[str]:
    """The program of a SuperNode, and the option that says who runs its tasks."""
    can_fork = sys.platform == "linux"
    if warm and not can_fork:
        raise SubflError(f"--warm: forking a process with PyTorch is safe on Linux alone, and this is {sys.platform}")
    if (warm is False or not can_fork) and not gated:
        return [program("flower-supernode"), "--isolation", "subprocess"]
    return [sys.executable, "-P", "-m", WARM_SUPERNODE, "--isolation", "process"]


def node_config(
    clients: Sequence[Path],
    state: Path | None,
    matcher_key: str | None = None,
    keep_embeddings: bool = False,
    allow_packages: Sequence[str] = (),
    epsilon_limit: float | None = None,
    match_bounds: Mapping[str, int] | None = None,
) -> str:
    """Configuration of a SuperNode's ClientApp: `client="DIR,DIR"`, and `state="DIR"` where given; paths are absolute.

    Without clients it is `role="matcher"`. `allow_packages` are further packages that a run's configuration may name.

    Flower reads each value as a TOML string between double quotes, and the app splits the clients' at commas.

    Raises:
        SubflError: a path holds a double quote, a backslash, a comma or a control character, or is named twice; the
            matcher has no state, the key is malformed, or a package is not installed.
    """
    if not clients and state is None:
        raise SubflError("--matcher: it keeps its key in a folder; name one with --state DIR")
    if matcher_key is not None and not re.fullmatch("[0-9a-f]{64}", matcher_key):
        raise SubflError(
            "--matcher-key: must be 64 hexadecimal digits, as subfl deploy matcher-key prints them "
            f"(found {matcher_key!r})"
        )
    folders = [_plain_path(client, "--client") for client in clients]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise SubflError(f"--client {twice[0]}: it is named twice; a client is hosted once")
    parts = [f'client="{",".join(folders)}"' if folders else f'role="{MATCHER}"']
    if state is not None:
        parts.append(f'state="{_plain_path(state, "--state")}"')
    if matcher_key is not None:
        parts.append(f'matcher-key="{matcher_key}"')
    if keep_embeddings:
        parts.append("keep-embeddings=true")
    if epsilon_limit is not None:
        if not 0 < epsilon_limit < math.inf:
            raise SubflError(f"--epsilon-limit: must be a number above 0 (found {epsilon_limit:g})")
        parts.append(f"epsilon-limit={epsilon_limit!r}")
    for name, bound in (match_bounds or {}).items():
        if clients or bound < 1:
            raise SubflError(f"--{name}: must be at least 1, and of a --matcher (found {bound})")
        parts.append(f"{name}={bound}")
    for package in allow_packages:
        if not package.isidentifier():
            raise SubflError(f"--allow-package {package}: must be a package's name in an import, without dots")
        require_installed(package, "--allow-package")
    if allow_packages:
        parts.append(f'allow-packages="{",".join(allow_packages)}"')
    return " ".join(parts)


def metrics_variable(address: str) -> dict[str, str]:
    """The environment variable by which a ServerApp serves metrics on `address`, HOST:PORT.

    Raises:
        SubflError: the address is malformed or taken, or the extra `metrics` is not installed.
    """
    host, port = split_address(address, "--metrics")
    optional_module("prometheus_client", "metrics", "--metrics")
    require_free_port(host, port, "--metrics")
    return {METRICS: address}


def start(command: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Replace this process by `command`, with the environment that Flower's programs need here, and `variables`."""
    os.execve(command[0], list(command), {**flower_environment(), **variables})


def shell_line(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """One shell line that is equivalent to `start`."""
    assignments = [f'PATH={shlex.quote(scripts_folder())}:"$PATH"']
    assignments += [f'{name}={LOCAL_HOSTS},"${name}"' for name in PROXY_EXCEPTIONS]
    assignments += [f"{name}={shlex.quote(value)}" for name, value in {**SETTINGS, **variables}.items()]
    return f"{' '.join(assignments)} {shlex.join(command)}"


def _plain_path(path: Path, option: str) -> str:
    text = str(path.resolve())
    if not text.isprintable() or _NOT_IN_A_PATH & set(text):
        raise SubflError(
            f"{option} {path}: Flower cannot pass on a path with a comma, a double quote, a backslash or a control "
            "character; rename the folder"
        )
    return text


def check_clients(paths: Sequence[Path]) -> None:
    """Open the clients' folders and read their data, which compares the checksums, and their keys."""
    from subfl_flower.data.folders.described_folder import held_in
    from subfl_flower.node.domain import domain_named

    if not paths:
        return
    resolved = [path.resolve() for path in paths]
    domain = domain_named(held_in(resolved[0]) or "") or domain_named("graph")
    assert domain is not None
    for folder in domain.open_folders(resolved):
        domain.read_folder(folder)
        read_file(folder.key_path, "--client")


def check_state(clients: Sequence[Path], state: Path | None) -> None:
    """Check that the node can write its state, in the clients' folders or in `state`."""
    if state is not None:
        make_folder(state, private=True)
    for folder in clients if state is None else (state,):
        if not os.access(folder, os.W_OK | os.X_OK):
            option = "--client" if state is None else "--state"
            raise SubflError(f"{option} {folder}: it must be a folder to write in; --state DIR names another place")
