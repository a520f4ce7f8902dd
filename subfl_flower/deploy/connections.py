"""Connections in Flower's configuration: the tables `[superlink.NAME]` of `config.toml`."""

import json
import os
import re
import socket
import ssl
import tomllib
from pathlib import Path
from typing import Any

from subfl_flower.deploy.addresses import require_loopback, split_address
from subfl_flower.deploy.certificates import load_certificate
from subfl_flower.deploy.files import PRIVATE, make_folder, write_file
from subfl_flower.errors import SubflError
from subfl_flower.flower.facts import DEFAULT_CONFIGURATION

_ANSWER_SECONDS = 10.0
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def config_path() -> Path:
    """Flower's configuration: in `$FLWR_HOME`, by default `~/.flwr`."""
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr") / "config.toml"


def connect(name: str, address: str, root_certificates: Path | None) -> Path:
    """Write the connection `name` into Flower's configuration; every other line of the file stays as it is.

    Args:
        name: name of the connection, for `flwr run . NAME` and the like.
        address: HOST:PORT of the SuperLink.
        root_certificates: certificate of the authority that signed the SuperLink's; `None` means no TLS, which is
            allowed for loopback addresses only.

    Returns:
        The configuration's path.

    Raises:
        SubflError: the name, the address or the certificate is invalid, or the configuration cannot be edited.
    """
    if not _NAME.fullmatch(name) or name == "default":
        raise SubflError(f"connection {name}: a name has letters, digits, - and _ only, and is not 'default'")
    host, _ = split_address(address, "--address")
    table: dict[str, Any] = {"address": address}
    if root_certificates is None:
        require_loopback(host, "--address")
        table["insecure"] = True
    else:
        load_certificate(root_certificates, "--root-certificates")
        table["root-certificates"] = str(root_certificates.resolve())
    path = config_path()
    make_folder(path.parent)
    text, values = _read(path)
    edited = _with_table(text, name, table)
    if _parsed(edited) != {**values, "superlink": {**values.get("superlink", {}), name: table}}:
        raise SubflError(f"{path}: superlink.{name} is not written as a table of its own; remove it by hand first")
    write_file(path, edited.encode(), PRIVATE)
    return path


def require_connection(name: str) -> None:
    """Check that Flower's configuration has the connection `name`, and that a SuperLink answers at its address.

    Raises:
        SubflError: there is no such connection, or no trusted answer.
    """
    path = config_path()
    known = _read(path)[1].get("superlink", {})
    table = known.get(name)
    if not isinstance(table, dict):
        names = ", ".join(sorted(key for key, value in known.items() if isinstance(value, dict)))
        raise SubflError(
            f"--connection {name}: {path} has {names or 'no connection'} only; "
            f"subfl deploy connect {name} --address HOST:PORT writes it"
        )
    host, port = split_address(str(table.get("address")), f"{path}: superlink.{name}.address")
    root = table.get("root-certificates")
    require_answer(host, port, table.get("insecure") is True, None if root is None else Path(root))


def require_answer(host: str, port: int, insecure: bool, root_certificates: Path | None) -> None:
    """Open a connection to a SuperLink, with a TLS handshake unless `insecure`, and close it.

    Flower's tools report each failure as a bad network.

    Args:
        host: DNS name or IP address.
        port: port of the SuperLink.
        insecure: true if the SuperLink does not use TLS.
        root_certificates: certificates to trust; `None` means the machine's certificates.

    Raises:
        SubflError: nobody answers, without TLS, or with a certificate that is not trusted or not for `host`.
    """
    where = f"the SuperLink {host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_SECONDS) as connection:
            if not insecure:
                context = ssl.create_default_context(cafile=root_certificates)
                context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        trusted = root_certificates or "this machine's certificates"
        raise SubflError(f"{where} is not trusted by {trusted}: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise SubflError(f"{where} does not speak TLS ({error.reason}); is it the right port?") from error
    except OSError as error:
        raise SubflError(f"{where} does not answer: {error.strerror or error}; is it running and reachable?") from error


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Text and values of the configuration; Flower's default where there is no file yet."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else DEFAULT_CONFIGURATION
    except (OSError, UnicodeDecodeError) as error:
        raise SubflError(f"{path} cannot be read ({error}); it must be a TOML file") from error
    values = _parsed(text)
    if values is None or not isinstance(values.get("superlink", {}), dict):
        raise SubflError(f"{path} is no configuration of Flower's: it must be TOML with tables [superlink.NAME]")
    return text, values


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _with_table(text: str, name: str, table: dict[str, Any]) -> str:
    """`text` without `[superlink.NAME]` and its sub-tables, and with `table` appended."""
    header = re.compile(rf"\s*\[\s*superlink\s*\.\s*(['\"]?){re.escape(name)}\1\s*[.\]]")
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = header.match(line) is not None
        if not inside:
            kept.append(line)
    rest = "".join(kept).rstrip()
    # JSON's strings and booleans are TOML's as well.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    return "\n".join([*([rest, ""] if rest else []), f"[superlink.{name}]", *lines, ""])
