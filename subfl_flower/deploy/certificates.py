"""The federation's certificate authority, and the SuperLink's certificate signed by it (RFC 5280)."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from subfl_flower.deploy.addresses import check_host, ip_address
from subfl_flower.deploy.files import PRIVATE, PUBLIC, make_folder, read_file, write_file
from subfl_flower.errors import SubflError

CA_KEY, CA_CERTIFICATE = "ca.key", "ca.crt"
SERVER_KEY, SERVER_CERTIFICATE = "server.key", "server.crt"

_ALWAYS = ("localhost", "127.0.0.1", "::1")
_CA_DAYS = 3650
_CLOCKS_DIFFER = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class _Signed:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path, hosts: Sequence[str], days: int) -> x509.Certificate:
    """Write a server certificate for `hosts`, signed by the authority in `folder`, which is created where absent.

    Args:
        folder: gets `ca.key`, `ca.crt`, `server.key` and `server.crt`; keys are readable by their owner alone.
        hosts: DNS names and IP addresses; `localhost`, `127.0.0.1` and `::1` are added.
        days: validity of the server certificate.

    Returns:
        The server certificate.

    Raises:
        SubflError: a host is malformed, or the authority in `folder` is incomplete, damaged or expires too early.
    """
    names = list(dict.fromkeys([*(check_host(host, "--host") for host in hosts), *_ALWAYS]))
    make_folder(folder)
    authority = _open_authority(folder) or _make_authority(folder)
    last = authority.certificate.not_valid_after_utc
    left = (last - _now()).days
    if left < 1:
        raise SubflError(f"the CA in {folder} ends on {last:%Y-%m-%d}: make a new one in an empty folder")
    if days > left:
        raise SubflError(f"--days {days}: the CA in {folder} ends on {last:%Y-%m-%d}; choose 1 to {left} days")
    # A common name has 64 characters at most, and nobody reads it: hosts are looked for among the alternative names.
    server = _issue("subfl SuperLink", ec.generate_private_key(ec.SECP256R1()), days, authority, names)
    _write(server, folder / SERVER_CERTIFICATE, folder / SERVER_KEY)
    return server.certificate


def check_certificates(folder: Path, host: str) -> None:
    """Check that a SuperLink listening on `host` can show the certificate in `folder`.

    Raises:
        SubflError: a file is missing or damaged, a certificate is not valid today, the key or the authority does not
            belong to the certificate, or the certificate does not name `host`.
    """
    authority = load_certificate(folder / CA_CERTIFICATE, "--certificates")
    server = load_certificate(folder / SERVER_CERTIFICATE, "--certificates")
    key = _load_key(folder / SERVER_KEY)
    if key.public_key() != server.public_key():
        raise SubflError(f"--certificates {folder}: {SERVER_KEY} is not the key of {SERVER_CERTIFICATE}; renew them")
    try:
        server.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise SubflError(
            f"--certificates {folder}: {SERVER_CERTIFICATE} is not signed by {CA_CERTIFICATE}; renew it"
        ) from error
    for name, certificate in ((CA_CERTIFICATE, authority), (SERVER_CERTIFICATE, server)):
        _check_dates(folder / name, certificate)
    _check_names(folder, server, host)


def load_certificate(path: Path, option: str) -> x509.Certificate:
    """The certificate in a PEM file.

    Raises:
        SubflError: the file cannot be read or holds none.
    """
    content = read_file(path, option)
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise SubflError(f"{option} {path}: it holds no certificate; it must be a PEM file") from error


def host_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses that a certificate is for, in its order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _open_authority(folder: Path) -> _Signed | None:
    """The authority in `folder`; `None` where there is none yet."""
    present = [name for name in (CA_KEY, CA_CERTIFICATE) if (folder / name).exists()]
    if not present:
        return None
    if len(present) == 1:
        missing = CA_CERTIFICATE if present == [CA_KEY] else CA_KEY
        raise SubflError(f"{folder} has {present[0]} but not {missing}: bring it back, or choose an empty folder")
    certificate, key = load_certificate(folder / CA_CERTIFICATE, "OUT"), _load_key(folder / CA_KEY)
    if key.public_key() != certificate.public_key():
        raise SubflError(f"{folder}: {CA_KEY} is not the key of {CA_CERTIFICATE}; choose an empty folder")
    return _Signed(certificate, key)


def _make_authority(folder: Path) -> _Signed:
    authority = _issue("subfl federation CA", ec.generate_private_key(ec.SECP384R1()), _CA_DAYS)
    _write(authority, folder / CA_CERTIFICATE, folder / CA_KEY)
    return authority


def _issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    issuer: _Signed | None = None,
    hosts: Sequence[str] = (),
) -> _Signed:
    """Sign a server's certificate for `hosts` by `issuer`; without one, the certificate of an authority by itself."""
    is_authority = issuer is None
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing = key if issuer is None else issuer.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCKS_DIFFER)
        .not_valid_after(_now() + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
        .add_extension(_usage(is_authority), critical=True)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(names, critical=False)
    return _Signed(builder.sign(signing, hashes.SHA384()), key)


def _usage(is_authority: bool) -> x509.KeyUsage:
    """An authority signs certificates and their revocation; a server signs handshakes."""
    return x509.KeyUsage(not is_authority, False, False, False, False, is_authority, is_authority, False, False)


def _general_name(host: str) -> x509.GeneralName:
    address = ip_address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _write(signed: _Signed, certificate: Path, key: Path) -> None:
    pem = serialization.Encoding.PEM
    secret = signed.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_file(key, secret, PRIVATE)
    write_file(certificate, signed.certificate.public_bytes(pem), PUBLIC)


def _check_dates(path: Path, certificate: x509.Certificate) -> None:
    if not certificate.not_valid_before_utc <= _now() <= certificate.not_valid_after_utc:
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        raise SubflError(f"{path} is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, not now: renew it")


def _check_names(folder: Path, server: x509.Certificate, host: str) -> None:
    """Check the certificate's names for `host`: Flower starts the app's process with the SuperLink's address."""
    address = ip_address(host)
    if address is not None and address.is_unspecified:
        host = "::1" if isinstance(address, ipaddress.IPv6Address) else "127.0.0.1"
    if host not in (names := host_names(server)):
        raise SubflError(
            f"--host {host}: {folder / SERVER_CERTIFICATE} is for {', '.join(names) or 'no host'} only; renew it with "
            f"subfl deploy certificates {folder} --host {host}"
        )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    content = read_file(path, "private key")
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SubflError(f"{path} holds no private key without password; it must be a PEM file") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SubflError(f"{path} is not a key of an elliptic curve; make certificates with subfl deploy certificates")
    return key


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
