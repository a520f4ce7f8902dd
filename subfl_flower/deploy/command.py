"""`subfl deploy`: certificates, keys and the processes of a federation on real machines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from subfl_flower.commands import exit_codes
from subfl_flower.commands.parser import Subcommand
from subfl_flower.deploy.certificates import CA_CERTIFICATE, host_names, make_certificates
from subfl_flower.deploy.files import keep_private, make_folder
from subfl_flower.deploy.keys import make_key, make_operator_key
from subfl_flower.deploy.operations.command import OPERATIONS
from subfl_flower.deploy.registration import bind, register
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.flower.programs import UNKNOWN, Flower, flower_environment
from subfl_flower.flower.submission import COMPLETED, INTERRUPTED

SUMMARY = "Make certificates and keys, start processes and submit runs of a federation on real machines."
EXAMPLE = """
subfl deploy superlink --certificates certificates --database superlink.db
subfl deploy submit method=fedpub schema=federation.json --connection hospital
"""


def _certificates(arguments: argparse.Namespace) -> int:
    certificate = make_certificates(arguments.out, arguments.host, arguments.days)
    last = certificate.not_valid_after_utc
    print(f"{arguments.out}: a certificate for {', '.join(host_names(certificate))}, valid until {last:%Y-%m-%d}")
    print(f"give every node and every user {arguments.out / CA_CERTIFICATE}; keep the keys")
    return exit_codes.OK


def _key(arguments: argparse.Namespace) -> int:
    public = make_key(arguments.out)
    print(f"{arguments.out}: the node's private key, which stays on its machine; {public} is to be registered")
    return exit_codes.OK


def _operator_key(arguments: argparse.Namespace) -> int:
    from subfl_flower.trust.operator_key import fingerprint, read_operator_public_key

    public = make_operator_key(arguments.out)
    print(f"{arguments.out}: the operator's private key, for the SuperLink's machine; every site pins {public}")
    print(f"its fingerprint, for sites to compare: {fingerprint(read_operator_public_key(public))}")
    return exit_codes.OK


def _matcher_key(arguments: argparse.Namespace) -> int:
    from subfl_flower.node.matcher import FolderMemory

    make_folder(arguments.state, private=True)
    print(FolderMemory(arguments.state, "").key().public.hex())
    return exit_codes.OK


def _connect(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.connections import connect

    _enter_home(arguments.home)
    path = connect(arguments.name, arguments.address, arguments.root_certificates)
    print(f"{path}: the connection {arguments.name} leads to {arguments.address}")
    return exit_codes.OK


def _register(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.connections import require_connection

    _enter_home(arguments.home)
    binds = bool(arguments.client or arguments.matcher)
    if binds != (arguments.members is not None) or (binds and len(arguments.public_key) != 1):
        raise SubflError("--client or --matcher, --members FILE and one public key belong together")
    require_connection(arguments.connection)
    if binds:
        (key,) = arguments.public_key
        bind(key, arguments.client or [], arguments.matcher, arguments.members, arguments.replace)
    done = register(arguments.public_key, Flower(flower_environment(), arguments.connection))
    return exit_codes.OK if done else exit_codes.FAILED


def _superlink(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.operations.locks import lock_database
    from subfl_flower.deploy.processes import metrics_variable, superlink_command
    from subfl_flower.deploy.site import server_variables

    variables = server_variables(arguments.operator_key, arguments.members)
    command = superlink_command(arguments.certificates, arguments.host, arguments.port, arguments.database)
    if arguments.database is not None and not arguments.print:
        keep_private(arguments.database)  # SQLite gives its other files the same permissions
    metrics = {} if arguments.metrics is None else metrics_variable(arguments.metrics)
    if not arguments.print:
        lock_database(arguments.database)
    return _start(command, arguments.print, {**variables, **metrics})


def _supernode(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.operations.locks import lock_node
    from subfl_flower.deploy.processes import Credentials, supernode_command
    from subfl_flower.deploy.site import UNPINNED, site_variables

    if (arguments.root_certificates is None) != (arguments.key is None):
        raise SubflError("--root-certificates and --key belong together: give both, or --insecure and neither")
    credentials = None if arguments.insecure else Credentials(arguments.root_certificates, arguments.key)
    clients = arguments.client or []
    operators = arguments.operator_key or []
    variables = site_variables(operators, clients, arguments.state, arguments.warm, arguments.policy)
    command = supernode_command(
        arguments.superlink,
        credentials,
        clients,
        arguments.state,
        arguments.port,
        arguments.matcher_key,
        arguments.keep_embeddings,
        arguments.allow_package or [],
        arguments.warm,
        gated=bool(variables),
        epsilon_limit=arguments.epsilon_limit,
        match_bounds={name: n for name in _MATCH_BOUNDS if (n := vars(arguments)[name.replace("-", "_")]) is not None},
    )
    if not arguments.print:
        lock_node(clients, arguments.state)
    if not operators:
        print(f"subfl deploy: {UNPINNED}", file=sys.stderr, flush=True)
    return _start(command, arguments.print, variables)


def _start(command: list[str], only_print: bool, variables: Mapping[str, str] | None = None) -> int:
    from subfl_flower.deploy.processes import shell_line, start

    if not only_print:
        start(command, variables or {})
    print(shell_line(command, variables or {}))
    return exit_codes.OK


def _code(arguments: argparse.Namespace) -> int:
    from subfl_flower.flower.app_folder import app_bundle, find_app
    from subfl_flower.trust.app_code import code_digest

    print(code_digest(app_bundle(find_app(arguments.app))))
    return exit_codes.OK


def _submit(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.submission import submit_run

    _enter_home(arguments.home)
    outcome = submit_run(arguments.overrides, arguments.connection, arguments.app)
    if outcome.status == INTERRUPTED:
        print("subfl deploy: the run was stopped", file=sys.stderr)
        return exit_codes.INTERRUPTED
    if outcome.status == UNKNOWN:
        raise RunFailure(f"the SuperLink does not answer; the run may go on, flwr ls {arguments.connection} tells")
    if outcome.status != COMPLETED:
        raise RunFailure(outcome.failure())
    if outcome.run_directory is not None:
        print(f"run directory on the SuperLink's machine: {outcome.run_directory}")
    return exit_codes.OK


def _enter_home(home: Path | None) -> None:
    """Have Flower use a folder as its home."""
    if home is not None:
        os.environ["FLWR_HOME"] = str(home.resolve())


def _certificates_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for ca.key, ca.crt, server.key and server.crt")
    parser.add_argument("--host", action="append", required=True, help="the SuperLink's DNS name or IP address; repeat")
    parser.add_argument("--days", type=_positive, default=365, help="how long the server certificate is valid (365)")


def _key_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT_FILE", help="file of the private key; .pub gets the public one")


def _operator_key_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT_FILE", help="file of the private key; .pub gets the public one")


def _connect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the connection")
    parser.add_argument("--address", required=True, metavar="HOST:PORT", help="of the SuperLink")
    _add_trust(parser)
    _add_home(parser)


def _register_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("public_key", type=Path, nargs="+", metavar="PUBLIC_KEY", help="a node's public key")
    parser.add_argument("--client", type=_client, action="append", metavar="ID", help="bind this client to the key")
    parser.add_argument("--matcher", action="store_true", help="the node may be the matcher")
    parser.add_argument(
        "--members", type=Path, metavar="FILE", help="file of members that subfl deploy superlink reads"
    )
    parser.add_argument("--replace", action="store_true", help="take the clients from a node to which they are bound")
    _add_connection(parser)


def _superlink_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--certificates", type=Path, metavar="DIR", help="folder with ca.crt, server.crt, server.key")
    group.add_argument("--insecure", action="store_true", help="no TLS, no authentication; on loopback only")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (0.0.0.0)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on (8000)")
    parser.add_argument("--database", type=Path, metavar="FILE", help="keeps registered nodes over a restart")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve runs' state to Prometheus (127.0.0.1:9400)")
    parser.add_argument("--operator-key", type=Path, metavar="FILE", help="sign every order with this private key")
    parser.add_argument("--members", type=Path, metavar="FILE", help="admit the clients that it binds to nodes' keys")
    _add_print(parser)


def _matcher_key_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the matcher's folder; made if absent")


_MATCH_BOUNDS = {
    "least-users": "answer no fewer users at once (5)",
    "least-common": "items in common that make two users neighbours (3)",
    "most-users": "answer twice as many requests a round at most (the run's clients)",
}


def _supernode_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="address of the SuperLink")
    _add_trust(parser)
    parser.add_argument("--key", type=Path, metavar="FILE", help="the node's private key")
    hosted = parser.add_mutually_exclusive_group(required=True)
    hosted.add_argument("--client", type=Path, action="append", metavar="DIR", help="a client; repeat")
    hosted.add_argument("--matcher", action="store_true", help="host no client: be the matcher of a graph expansion")
    parser.add_argument("--matcher-key", metavar="HEX", help="the only matcher that the clients seal to")
    for name, words in _MATCH_BOUNDS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"of a matcher: {words}")
    parser.add_argument(
        "--keep-embeddings", action="store_true", help="never tell the server an embedding to cluster users by"
    )
    parser.add_argument(
        "--epsilon-limit",
        type=float,
        metavar="EPSILON",
        help="largest epsilon, at delta 1e-5, of all uploads of a client's data in all runs together",
    )
    parser.add_argument(
        "--allow-package", action="append", metavar="NAME", help="an installed package whose classes a run may name"
    )
    parser.add_argument(
        "--operator-key",
        type=Path,
        action="append",
        metavar="FILE",
        help="carry out no order but those that this public key's owner signed; repeat while the key changes",
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="runs that this site takes part in, as TOML")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder for what stays on the node between messages")
    parser.add_argument("--port", type=_port_or_any, default=0, help="port for local processes (0: a free one)")
    parser.add_argument(
        "--warm",
        action=argparse.BooleanOptionalAction,
        help="import PyTorch once, and not again for each message (the default on Linux)",
    )
    _add_print(parser)


def _code_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--app", type=Path, metavar="DIR", help="folder with another app's pyproject.toml")


def _submit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides; schema=FILE or schema.*")
    parser.epilog = """\
The server has no data. schema=FILE tells it what the clients' data look like: federation.json, as subfl partition wrote
it, read here and sent along. Without it: schema.features=N schema.classes=N for graphs, schema.items=N for ratings.
A run that is resumed (resume=FOLDER) has its own."""
    _add_connection(parser)
    parser.add_argument("--app", type=Path, metavar="DIR", help="folder with another app's pyproject.toml")


def _add_trust(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--root-certificates", type=Path, metavar="FILE", help="ca.crt of the federation")
    group.add_argument("--insecure", action="store_true", help="no TLS; on loopback only")


def _add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connection", required=True, metavar="NAME", help="as subfl deploy connect wrote it")
    _add_home(parser)


def _add_home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, metavar="DIR", help="Flower's home ($FLWR_HOME, else ~/.flwr)")


def _add_print(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--print", action="store_true", help="print the command line instead of starting it")


def _positive(text: str) -> int:
    return _number(text, 1)


def _client(text: str) -> int:
    return _number(text, 0)


def _port(text: str) -> int:
    return _number(text, 1, 65535)


def _port_or_any(text: str) -> int:
    return _number(text, 0, 65535)


def _number(text: str, smallest: int, largest: int | None = None) -> int:
    allowed = f"{smallest} or more" if largest is None else f"from {smallest} to {largest}"
    if not (text.isascii() and text.isdigit()) or int(text) < smallest or (largest is not None and int(text) > largest):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number {allowed}")
    return int(text)


SUBCOMMANDS = {
    "certificates": Subcommand(
        "Make or renew the SuperLink's certificate.",
        "subfl deploy certificates certificates --host superlink.example.org",
        _certificates_options,
        _certificates,
    ),
    "key": Subcommand("Make a SuperNode's key pair.", "subfl deploy key keys/node-03", _key_options, _key),
    "operator-key": Subcommand(
        "Make the key pair with which the server signs its orders to sites.",
        "subfl deploy operator-key operator",
        _operator_key_options,
        _operator_key,
    ),
    "matcher-key": Subcommand(
        "Print a matcher's public key, which its users seal to.",
        "subfl deploy matcher-key --state matcher",
        _matcher_key_options,
        _matcher_key,
    ),
    "connect": Subcommand(
        "Write a connection into Flower's configuration.",
        "subfl deploy connect hospital --address superlink.example.org:8003 --root-certificates certificates/ca.crt",
        _connect_options,
        _connect,
    ),
    "register": Subcommand(
        "Have the SuperLink admit SuperNodes.",
        "subfl deploy register keys/node-03.pub --connection hospital",
        _register_options,
        _register,
    ),
    "superlink": Subcommand(
        "Start the SuperLink in the foreground.",
        "subfl deploy superlink --certificates certificates --database superlink.db",
        _superlink_options,
        _superlink,
    ),
    "supernode": Subcommand(
        "Start a SuperNode in the foreground.",
        "subfl deploy supernode --superlink superlink.example.org:8002 \\\n"
        "      --root-certificates ca.crt --key node-03 --client client-03",
        _supernode_options,
        _supernode,
    ),
    "code": Subcommand(
        "Print the digest of the code that a submitted run brings, for sites' policies.",
        "subfl deploy code",
        _code_options,
        _code,
    ),
    "submit": Subcommand(
        "Run the app and follow it to its end.",
        "subfl deploy submit method=fedpub schema=federation.json --connection hospital",
        _submit_options,
        _submit,
    ),
    **OPERATIONS,
}
