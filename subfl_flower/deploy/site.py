"""Settings that a site's operator alone decides on, handed to the processes of its SuperNode."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.trust.gate import SITE, SiteSettings
from subfl_flower.trust.members import MEMBERS, Members
from subfl_flower.trust.operator_key import OPERATOR_KEY, read_operator_key, read_operator_public_key

_FOLDER = "site"

UNPINNED = (
    "warning: without --operator-key this site carries out the orders of every registered node, not the server's alone"
)


def site_variables(
    operator_keys: Sequence[Path],
    clients: Sequence[Path],
    state: Path | None,
    warm: bool | None,
    policy: Path | None = None,
) -> dict[str, str]:
    """Environment variables of a SuperNode with a gate; none where nothing is asked for.

    Args:
        operator_keys: files of public keys whose orders are carried out; two while the operator changes its key.
        clients: the clients' folders.
        state: folder for what stays on the node; None keeps it in the first client's folder.
        warm: as of `processes.supernode_command`.
        policy: the site's policy file.

    Raises:
        SubflError: a file holds no such key, or is no policy.
    """
    if not operator_keys and policy is None:
        return {}
    pinned = tuple(read_operator_public_key(path).hex() for path in operator_keys)
    folder = (state or clients[0]).resolve() / _FOLDER
    forks = sys.platform == "linux" and warm is not False
    settings = SiteSettings(operators=pinned, state=folder, warm=forks)
    if policy is not None:
        from subfl_flower.deploy.site_policy import clients_of_methods, read_policy

        checked = read_policy(policy)
        settings = settings.model_copy(update={"policy": checked, "clients": clients_of_methods(checked)})
    return {SITE: settings.model_dump_json(exclude_defaults=True)}


def server_variables(operator_key: Path | None, members: Path | None) -> dict[str, str]:
    """Environment variables of a SuperLink, for its ServerApps.

    Args:
        operator_key: file of the private key with which they sign their orders.
        members: file that binds clients to nodes' keys.

    Raises:
        SubflError: the file holds no private key of an operator, or there are members and no key.
    """
    found = {}
    if operator_key is not None:
        read_operator_key(operator_key)
        found[OPERATOR_KEY] = str(operator_key.resolve())
    if members is not None:
        if operator_key is None:
            raise SubflError(
                f"--members {members}: needs --operator-key; without signatures a node could guess the number of a "
                "message to another node, and answer in its place"
            )
        Members.read(members)
        found[MEMBERS] = str(members.resolve())
    return found
