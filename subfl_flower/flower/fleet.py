"""Questions to a SuperLink by a SuperNode that is not started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

REGISTERED, UNKNOWN_KEY = "registered", "unknown"

_NO_INTERVAL = -1.0
"""Seconds between two signs of life that a SuperLink refuses, after it has looked for the node's key."""


def standing_of_key(address: str, root_certificates: Path, key: Path) -> str:
    """The SuperLink's answer to a node's key, without that the node connects.

    A SuperLink looks for the key first, and then refuses an activation with an interval that cannot be. So a node that
    runs at the same time is not disturbed.

    Args:
        address: HOST:PORT of the SuperLink.
        root_certificates: certificate of the authority that signed the SuperLink's.
        key: file of the node's private key.

    Returns:
        `REGISTERED`, `UNKNOWN_KEY`, or another answer in words.
    """
    private = load_ssh_private_key(key.read_bytes(), None)
    assert isinstance(private, EllipticCurvePrivateKey)
    public = private.public_key()
    interceptors: list[Any] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(private, public),
    ]
    request = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=_NO_INTERVAL)
    try:
        with FleetHttpClient.from_server_address(
            address, False, root_certificates.read_bytes(), interceptors=interceptors
        ) as client:
            client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        found = FlowerError.from_json(error.response.text)
        if found is not None and found.code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
            return REGISTERED
        if found is not None and found.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            return UNKNOWN_KEY
        return f"HTTP {error.response.status_code}: {found.message if found else error.response.text[:200]}"
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    return REGISTERED
