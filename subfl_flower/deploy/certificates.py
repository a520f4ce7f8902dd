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
class Authority:
    """A certificate authority: its certificate and its signing key."""

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
    authority = _open_authority(folder)
    if authority is None:
        authority = _make_authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign_server(authority, key, names, days, folder)
    write_file(folder / SERVER_KEY, _private_pem(key), PRIVATE)
    write_file(folder / SERVER_CERTIFICATE, _pem(certificate), PUBLIC)
    return certificate


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


def _open_authority(folder: Path) -> Authority | None:
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
    return Authority(certificate, key)


def _make_authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "subfl federation CA")])
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    builder = _builder(name, name, key.public_key(), key.public_key(), _now() + datetime.timedelta(days=_CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA384())
    write_file(folder / CA_KEY, _private_pem(key), PRIVATE)
    write_file(folder / CA_CERTIFICATE, _pem(certificate), PUBLIC)
    return Authority(certificate, key)


def _sign_server(
    authority: Authority, key: ec.EllipticCurvePrivateKey, names: Sequence[str], days: int, folder: Path
) -> x509.Certificate:
    last = authority.certificate.not_valid_after_utc
    left = (last - _now()).days
    if left < 1:
        raise SubflError(f"the CA in {folder} ends on {last:%Y-%m-%d}: make a new one in an empty folder")
    if days > left:
        raise SubflError(f"--days {days}: the CA in {folder} ends on {last:%Y-%m-%d}; choose 1 to {left} days")
    end = _now() + datetime.timedelta(days=days)
    # A common name has 64 characters at most, and nobody reads it: hosts are looked for among the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "subfl SuperLink")])
    issuer, issuer_key = authority.certificate.subject, authority.key.public_key()
    builder = _builder(subject, issuer, key.public_key(), issuer_key, end)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(authority.key, hashes.SHA384())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    """Builder with the fields of every certificate: subject, issuer, keys and validity."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCKS_DIFFER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    address = ip_address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


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


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
