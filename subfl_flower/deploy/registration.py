"""Registration of SuperNodes: the SuperLink admits those whose public keys it knows."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subfl_flower.deploy.keys import check_public_key
from subfl_flower.flower.programs import Flower
from subfl_flower.trust.members import Member, Members, read_node_key

_ANNOUNCEMENT = re.compile(r"^Using SuperLink: .*$", re.MULTILINE)
_IN_USE = "public key already in use"


def register(public_keys: Sequence[Path], flower: Flower) -> bool:
    """Register SuperNodes by their public keys, and print a line for each.

    Returns:
        True if all of them are registered now; a key that was registered before counts.

    Raises:
        SubflError: a file holds no public key; nothing is registered then.
    """
    for path in public_keys:
        check_public_key(path)
    return all([_register(path, flower) for path in public_keys])


def bind(public_key: Path, clients: Sequence[int], matcher: bool, file: Path, replace: bool) -> None:
    """Bind clients to a node's key in the file of members, which is made if absent, and print a line.

    Args:
        public_key: of the node.
        clients: ids of the clients that it may host, instead of those that it had.
        matcher: it may be the matcher.
        file: of the members.
        replace: take the clients from other nodes to which they are bound.

    Raises:
        SubflError: a file cannot be read or written, or a client is bound to another node.
    """
    check_public_key(public_key)
    key, name = read_node_key(public_key), public_key.name.removesuffix(".pub")
    member = Member(name=name, key=key, clients=tuple(sorted(set(clients))), matcher=matcher)
    members = Members.read(file) if file.exists() else Members()
    members.bound(member, replace).write(file)
    bound = f"clients {', '.join(map(str, member.clients))}" if clients else "the matcher"
    print(f"{file}: {bound} bound to {member}", flush=True)


def _register(path: Path, flower: Flower) -> bool:
    try:
        answer = flower.run("supernode", "register", str(path.resolve()), flower.connection, "--format", "json")
    except subprocess.TimeoutExpired:
        print(f"{path}: not registered: the SuperLink does not answer", flush=True)
        return False
    result = _result(answer.stdout)
    if result.get("success"):
        print(f"{path}: registered as node {result['node-id']}", flush=True)
        return True
    reason = " ".join(_ANNOUNCEMENT.sub("", str(result.get("error-message") or answer.stderr or answer.stdout)).split())
    if _IN_USE in reason.lower():
        print(f"{path}: registered already", flush=True)
        return True
    print(f"{path}: not registered: {reason or f'flwr ended with code {answer.returncode}'}", flush=True)
    return False


def _result(output: str) -> dict[str, Any]:
    """The JSON document that `flwr` printed, perhaps after other lines; empty where there is none."""
    try:
        result = json.loads(output[output.index("{") :])
    except ValueError:
        return {}
    return result if isinstance(result, dict) else {}
