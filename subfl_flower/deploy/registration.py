"""Registration of SuperNodes: the SuperLink admits those whose public keys it knows."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subfl_flower.deploy.keys import check_public_key
from subfl_flower.flower.programs import Flower

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
