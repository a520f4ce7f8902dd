"""Check that a SuperLink answers at an address; Flower's tools report every failure as a bad network."""

import socket
import ssl
from pathlib import Path

from subfl_flower.errors import SubflError

_SECONDS = 10.0


def require_superlink(host: str, port: int, insecure: bool, root_certificates: Path | None) -> None:
    """Open a connection to a SuperLink, with a TLS handshake unless `insecure`, and close it.

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
        with socket.create_connection((host, port), timeout=_SECONDS) as connection:
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
