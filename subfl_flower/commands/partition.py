"""`subfl partition`: divide a data set into one folder a client, to be given to the client's machine alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.commands.exit_codes import OK
from subfl_flower.commands.parser import own_settings
from subfl_flower.errors import SubflError

SUMMARY = "Divide a data set into one folder for each client's machine."
EXAMPLE = """
subfl partition dataset=cora partition=metis partition.clients=10 out=partitions/cora
subfl partition dataset=custom dataset.path=wards/ 'dataset.classes=[home,transferred,died]' partition=whole \\
      client=3 key=clients.key out=folders
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides; the command's own settings are among them."""
    parser.usage = "subfl partition [KEY=VALUE ...] out=DIR [key=FILE] [client=ID]"
    parser.description = """\
Divide a data set into one folder a client, DIR/client-00, DIR/client-01, ...: client.json (what it is),
graph.safetensors or ratings.safetensors (what the client holds; of other clients at most the ids of nodes
that its own are tied to) and clients.key (a secret that all clients share and the server must not have).
Give each client's machine its own folder. DIR/federation.json is for whoever submits a run: it states
what all clients' data have in common (subfl deploy submit schema=DIR/federation.json)."""
    parser.epilog = """\
out=DIR      where the folders go; they appear all together or not at all
key=FILE     32 random bytes to use as clients.key (head -c 32 /dev/urandom > FILE); by default a new key is made
client=ID    with partition=whole: write the one folder client-ID. So a site makes the folder of its own graph
             where it lies; nothing is put together anywhere. All sites use the same key, and state the same
             dataset.classes; then the federation.json of all sites is the same file, byte by byte"""
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides as of subfl; dataset, partition, data and task matter, the others are accepted",
    )


def run(options: argparse.Namespace) -> int:
    """Write the folders, and print their sizes.

    Raises:
        SubflError: the configuration or the data cannot be used, or a folder cannot be written.
    """
    from subfl_flower.commands.client_folders import write_client_folders

    own, overrides = own_settings(options.arguments, ["out", "client", "key"])
    if not own.get("out"):
        raise SubflError("out: a folder is required, for instance out=partitions/digits")
    client = own.get("client")
    if client is not None and not (client.isascii() and client.isdigit()):
        raise SubflError(f"client: must be the client's number, 0 or more (found {client!r})")
    write_client_folders(
        overrides,
        Path(own["out"]).expanduser(),
        None if client is None else int(client),
        Path(own["key"]).expanduser() if own.get("key") else None,
    )
    return OK
