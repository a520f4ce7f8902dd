"""Folders of clients that a data set is divided into."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from subfl_flower.commands.tables import print_table, with_progress
from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.data.federation_schema import FEDERATION_FILE, FederationSchema
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import Prepared, domain_of
from subfl_flower.node.shared_key import KEY_BYTES, SharedKey
from subfl_flower.runs.remarks import print_remarks
from subfl_flower.server.run_schema import run_schema
from subfl_flower.storage.durable_files import force_to_disk, make_private_folder

_MOST_ROWS = 50


def write_client_folders(overrides: Sequence[str], out: Path, client: int | None, key_file: Path | None) -> None:
    """Divide a data set, write one folder for each client, and print their sizes.

    Args:
        overrides: Hydra overrides; those that do not concern the data have no effect.
        out: the folder for the clients' folders.
        client: the id of the one folder of `partition=whole`; None writes those of a partition's clients.
        key_file: the file of the shared key; None makes a new key.

    Raises:
        SubflError: the configuration or the data cannot be used, or a folder cannot be written.
    """
    config, _ = composed_config(overrides)
    if client is not None:
        config = _of_site(config)
    domain = domain_of(config)
    key = SharedKey(key_file).read() if key_file else secrets.token_bytes(KEY_BYTES)
    prepared = domain.prepare(config)
    if client is not None:
        _require_class_numbers(config, prepared)
    ids = range(prepared.num_clients) if client is None else [client]
    names = [f"client-{client_id:0{max(2, len(str(max(ids))))}d}" for client_id in ids]
    _require_absent(out, names)
    schema = run_schema(config, prepared) if client is None else run_schema(config, prepared).of_sites()
    placed = names if _has_already(out, schema) else [*names, FEDERATION_FILE]
    with _placed_together(out, placed) as folder:
        schema.write(folder / FEDERATION_FILE)
        for position, name in enumerate(with_progress(names, "clients")):
            domain.write_folder(folder / name, config, prepared, position, key, own_id=client)
    _print_result(out, names, config)
    of_site = [] if client is None else domain.remarks_for_site(prepared)
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


def _print_result(out: Path, names: Sequence[str], config: Config) -> None:
    rows = [domain_of(config).described(out / name) for name in names]
    print_table(list(rows[0]), [list(row.values()) for row in rows], _MOST_ROWS, numbers=True)
    clients = f"{len(names)} clients" if len(names) > 1 else names[0]
    print(
        f"{clients} of {config.dataset.name} in {out.absolute()}: give each machine the folder of its own client alone"
    )
    print(f"{FEDERATION_FILE} there is for whoever submits a run: subfl deploy submit schema={FEDERATION_FILE} ...")
