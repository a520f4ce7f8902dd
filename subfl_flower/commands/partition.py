"""`subfl partition`: divide a data set into one folder a client, to be given to the client's machine alone."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.data.federation_schema import FEDERATION_FILE, FederationSchema
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import Prepared, domain_of
from subfl_flower.node.shared_key import KEY_BYTES, SharedKey
from subfl_flower.runs.remarks import print_remarks
from subfl_flower.server.run_schema import run_schema
from subfl_flower.storage.durable_files import force_to_disk, make_private_folder

_OWN_ARGUMENTS = ("out", "client", "key")
_MOST_ROWS = 50


def main(argv: Sequence[str]) -> int:
    """Run `subfl partition ARGV`; return the exit code, 2 for errors that the user can mend."""
    try:
        arguments: list[str] = _parser().parse_args(argv).arguments
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    try:
        _partition(_request(arguments))
    except SubflError as error:
        print(f"subfl partition: {error}", file=sys.stderr)
        return 2
    return 0


@dataclass(frozen=True)
class _Request:
    """Arguments of the command.

    Attributes:
        overrides: Hydra overrides; those that do not concern the data have no effect.
        out: the folder for the clients' folders.
        client: the id of the one folder of `partition=whole`; None cuts a partition's clients.
        key: the file of the shared key; None makes a new key.
    """

    overrides: tuple[str, ...]
    out: Path
    client: int | None
    key: Path | None


def _request(arguments: Sequence[str]) -> _Request:
    pairs = [(argument.partition("=")[0], argument.partition("=")[2], argument) for argument in arguments]
    own = {name: value for name, value, _ in pairs if name in _OWN_ARGUMENTS}
    if not own.get("out"):
        raise SubflError("out: a folder is required, for instance out=partitions/digits")
    client = own.get("client")
    if client is not None and not (client.isascii() and client.isdigit()):
        raise SubflError(f"client: must be the client's number, 0 or more (found {client!r})")
    return _Request(
        overrides=tuple(argument for name, _, argument in pairs if name not in _OWN_ARGUMENTS),
        out=Path(own["out"]).expanduser(),
        client=None if client is None else int(client),
        key=Path(own["key"]).expanduser() if own.get("key") else None,
    )


def _partition(request: _Request) -> None:
    config, _ = composed_config(request.overrides)
    if request.client is not None:
        config = _of_site(config)
    key = SharedKey(request.key).read() if request.key else secrets.token_bytes(KEY_BYTES)
    prepared = domain_of(config).prepare(config)
    if request.client is not None:
        _require_class_numbers(config, prepared)
    ids = range(prepared.num_clients) if request.client is None else [request.client]
    names = [f"client-{client_id:0{max(2, len(str(max(ids))))}d}" for client_id in ids]
    _require_absent(request.out, names)
    schema = run_schema(config, prepared) if request.client is None else run_schema(config, prepared).of_sites()
    placed = names if _has_already(request.out, schema) else [*names, FEDERATION_FILE]
    with _placed_together(request.out, placed) as folder:
        schema.write(folder / FEDERATION_FILE)
        for position, name in enumerate(_with_progress(names)):
            _write(folder / name, prepared, position, request, config, key)
    _print_result(request.out, names, config)
    of_site = [] if request.client is None else domain_of(config).remarks_for_site(prepared)
    print_remarks(prepared.data["dropped"], [*prepared.data["warnings"], *of_site])


def _of_site(config: Config) -> Config:
    """The configuration of a site that makes only its own folder: features are not scaled unless it says so.

    Raises:
        SubflError: the graph is to be divided, or a column's categories would be found in the site's data alone.
    """
    if config.partition.divides:
        raise SubflError("client: numbers the one folder of partition=whole; other partitions number their own clients")
    return config.model_copy(update={"dataset": config.dataset.for_site()})


def _require_class_numbers(config: Config, prepared: Prepared) -> None:
    """Require stated class numbers: a site sees its own labels alone, and sites would number classes differently."""
    if domain_of(config).about(prepared)["num_classes"]:
        config.dataset.require_common_classes()


def _require_absent(out: Path, names: Sequence[str]) -> None:
    present = [name for name in names if (out / name).exists()]
    if present:
        raise SubflError(f"out: {out} holds {present[0]} already; choose another folder, or remove what is there")


def _has_already(out: Path, schema: FederationSchema) -> bool:
    """True if `out` has the file of the same schema, as where a site makes several folders.

    Raises:
        SubflError: it has the file of another schema.
    """
    path = out / FEDERATION_FILE
    if not path.exists():
        return False
    if FederationSchema.read(path) != schema:
        raise SubflError(f"out: {path} is of other data; choose another folder, or remove what is there")
    return True


def _write(path: Path, prepared: Prepared, position: int, request: _Request, config: Config, key: bytes) -> None:
    domain_of(config).write_folder(path, config, prepared, position, key, own_id=request.client)


@contextmanager
def _placed_together(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """A hidden folder to write `names` in. They are then moved to `out`: all of them, or none if anything fails."""
    unfinished = out / f".unfinished-{os.getpid()}-{secrets.token_hex(4)}"
    placed: list[Path] = []
    try:
        make_private_folder(unfinished)
        yield unfinished
        for name in names:
            (unfinished / name).rename(out / name)
            placed.append(out / name)
        force_to_disk(out)
    except BaseException as error:
        for path in placed:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SubflError(f"out: {out} cannot be written: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _with_progress(names: Sequence[str]) -> Iterator[str]:
    console = Console(stderr=True)
    yield from track(names, "clients", console=console, disable=not console.is_terminal, transient=True)


def _print_result(out: Path, names: Sequence[str], config: Config) -> None:
    rows = [domain_of(config).described(out / name) for name in names]
    table = Table(*rows[0])
    for column in table.columns:
        column.justify = "right"
    for row in rows[:_MOST_ROWS]:
        table.add_row(*map(str, row.values()))
    if len(rows) > _MOST_ROWS:
        table.add_row(*("..." for _ in rows[0]))
    Console().print(table)
    clients = f"{len(names)} clients" if len(names) > 1 else names[0]
    print(
        f"{clients} of {config.dataset.name} in {out.absolute()}: give each machine the folder of its own client alone"
    )
    print(f"{FEDERATION_FILE} there is for whoever submits a run: subfl deploy submit schema={FEDERATION_FILE} ...")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl partition",
        usage="subfl partition [KEY=VALUE ...] out=DIR [key=FILE] [client=ID]",
        description="Divide a data set into one folder a client, DIR/client-00, DIR/client-01, ...: client.json (what "
        "it is),\ngraph.safetensors or ratings.safetensors (what the client holds; of other clients at most the ids of "
        "nodes\nthat its own are tied to) and clients.key (a secret that all clients share and the server must not "
        "have).\nGive each client's machine its own folder. DIR/federation.json is for whoever submits a run: it "
        "states\nwhat all clients' data have in common (subfl deploy submit schema=DIR/federation.json).",
        epilog="""\
out=DIR      where the folders go; they appear all together or not at all
key=FILE     32 random bytes to use as clients.key (head -c 32 /dev/urandom > FILE); by default a new key is made
client=ID    with partition=whole: write the one folder client-ID. So a site makes the folder of its own graph
             where it lies; nothing is put together anywhere. All sites use the same key, and state the same
             dataset.classes; then the federation.json of all sites is the same file, byte by byte

examples:
  subfl partition dataset=cora partition=metis partition.clients=10 out=partitions/cora
  subfl partition dataset=custom dataset.path=wards/ 'dataset.classes=[home,transferred,died]' partition=whole \\
        client=3 key=clients.key out=folders""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides as of subfl; dataset, partition, data and task matter, the others are accepted",
    )
    return parser
