"""`subfl deploy check`, `subfl deploy status` and `subfl deploy clean`."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.commands import exit_codes
from subfl_flower.commands.parser import Subcommand
from subfl_flower.errors import SubflError


def _status(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.operations.status import newest_run, show_status

    show_status(arguments.run or newest_run(Path("outputs")), arguments.watch, arguments.json)
    return exit_codes.OK


def _check(arguments: argparse.Namespace) -> int:
    from subfl_flower.deploy.operations.check import Site, check_site
    from subfl_flower.deploy.processes import Credentials

    if not arguments.insecure and arguments.key is None:
        raise SubflError("--root-certificates and --key belong together: give both, or --insecure and neither")
    credentials = None if arguments.insecure else Credentials(arguments.root_certificates, arguments.key)
    site = Site(
        arguments.superlink,
        credentials,
        arguments.client or [],
        arguments.state,
        arguments.operator_key or [],
        arguments.policy,
    )
    return exit_codes.OK if check_site(site) else exit_codes.FAILED


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="address of the SuperLink")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--root-certificates", type=Path, metavar="FILE", help="ca.crt of the federation")
    group.add_argument("--insecure", action="store_true", help="no TLS")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the node's private key")
    parser.add_argument("--client", type=Path, action="append", metavar="DIR", help="a client's folder; repeat")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder for the node's state")
    parser.add_argument("--operator-key", type=Path, action="append", metavar="FILE", help="the operator's public key")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the site's policy")


def _clean(arguments: argparse.Namespace) -> int:
    from subfl_flower.commands.tables import print_table
    from subfl_flower.deploy.operations.clean import leftovers
    from subfl_flower.evaluation.formats import human_bytes

    states, outputs = arguments.state or [], arguments.outputs or []
    if not states and not outputs:
        raise SubflError("name a folder: --state DIR on a node, --outputs DIR on the server's machine")
    found = leftovers(states, outputs, arguments.older_than, arguments.all)
    size = human_bytes(sum(each.size for each in found))
    if not found:
        print(f"nothing is older than {arguments.older_than} days")
        return exit_codes.OK
    rows = [
        (each.run, ", ".join(path.name for path in each.paths), f"{each.days:.0f}", human_bytes(each.size))
        for each in found
    ]
    print_table(("run", "files", "days", "size"), rows)
    if not arguments.yes:
        print(f"{size} would be removed; --yes removes them")
        return exit_codes.OK
    for each in found:
        each.remove()
    print(f"{size} removed")
    return exit_codes.OK


def _clean_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state", type=Path, action="append", metavar="DIR", help="a client's or node's folder; repeat"
    )
    parser.add_argument(
        "--outputs", type=Path, action="append", metavar="DIR", help="folder with runs' folders; repeat"
    )
    parser.add_argument("--older-than", type=_days, required=True, metavar="DAYS", help="since the last change")
    parser.add_argument("--all", action="store_true", help="also models, and whole folders of runs")
    parser.add_argument("--yes", action="store_true", help="remove, instead of listing what would be removed")


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of days, 1 or more")
    return int(text)


def _status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="a run's folder; default: the newest here")
    parser.add_argument("--watch", action="store_true", help="look every two seconds until the run ends")
    parser.add_argument("--json", action="store_true", help="one JSON object a look")


OPERATIONS = {
    "check": Subcommand(
        "Check a site's machine: way to the SuperLink, certificates, clock, key, folders, disk.",
        "subfl deploy check --superlink superlink.example.org:8000 \\\n"
        "      --root-certificates ca.crt --key node --client client-03",
        _check_options,
        _check,
    ),
    "status": Subcommand(
        "Show the state of a run on the server's machine.",
        "subfl deploy status outputs/2026-01-01/12-00-00 --watch",
        _status_options,
        _status,
    ),
    "clean": Subcommand(
        "List or remove what old runs have left.",
        "subfl deploy clean --state client-03 --older-than 30 --yes",
        _clean_options,
        _clean,
    ),
}
