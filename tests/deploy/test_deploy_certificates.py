import datetime
import ipaddress
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from deploy_answers import Answer

from subfl_flower.deploy.certificates import check_certificates
from subfl_flower.errors import SubflError


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def verify(folder: Path, host: str) -> int:
    """The length of the chain that cryptography's own verifier builds for a client that connects to `host`."""
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    verifier = PolicyBuilder().store(Store([load(folder / "ca.crt")])).build_server_verifier(subject)
    return len(verifier.verify(load(folder / "server.crt"), []))


def test_the_chain_holds_for_every_host_and_for_no_other(deploy: Callable[..., Answer], tmp_path: Path) -> None:
    answer = deploy("certificates", "made/here", "--host", "a.example.org", "--host", "10.0.0.7", "--host", "::1")
    assert answer.code == 0
    folder = tmp_path / "made/here"
    names = load(folder / "server.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example.org", "localhost"]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["10.0.0.7", "::1", "127.0.0.1"]
    for host in ("a.example.org", "10.0.0.7", "localhost", "127.0.0.1", "::1"):
        assert verify(folder, host) == 2
    for host in ("b.example.org", "10.0.0.8"):
        with pytest.raises(VerificationError):
            verify(folder, host)


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_keys_are_private_and_certificates_are_not(no_umask: None, certificates: Path) -> None:
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in certificates.iterdir()}
    assert modes == {"ca.crt": "0o644", "ca.key": "0o600", "server.crt": "0o644", "server.key": "0o600"}


def test_a_second_call_renews_the_server_certificate_alone(certificates: Path, deploy: Callable[..., Answer]) -> None:
    before = {path.name: path.read_bytes() for path in certificates.iterdir()}
    assert deploy("certificates", certificates, "--host", "other.example.org", "--days", "3").code == 0
    changed = {path.name for path in certificates.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"server.crt", "server.key"}
    left = load(certificates / "server.crt").not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=2, hours=23) < left <= datetime.timedelta(days=3)
    assert verify(certificates, "other.example.org") == 2


def test_a_real_handshake_over_loopback(certificates: Path, deploy: Callable[..., Answer], tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        secure.sendall(b"hello")
                except OSError:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        client = ssl.create_default_context(cafile=certificates / "ca.crt")
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        raw = socket.create_connection(("127.0.0.1", port))
        with client.wrap_socket(raw, server_hostname="superlink.example.org") as secure:
            assert secure.recv(5) == b"hello"
        assert deploy("certificates", "other", "--host", "a").code == 0
        stranger = ssl.create_default_context(cafile=tmp_path / "other/ca.crt")
        raw = socket.create_connection(("127.0.0.1", port))
        with raw, pytest.raises(ssl.SSLCertVerificationError):
            stranger.wrap_socket(raw, server_hostname="localhost")
        thread.join(timeout=60)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "a:8000"], "--host a:8000: it must be a DNS name or an IP address, without scheme and port"),
        (["--host", "https://a"], "--host https://a: it must be a DNS name or an IP address"),
        (["--host", "10.0.0.256"], "--host 10.0.0.256: it must be a DNS name or an IP address"),
        (["--host", "a", "--days", "0"], "0 is not a whole number 1 or more"),
        (["--host", "a", "--days", "4000"], "choose 1 to 3649 days"),
        ([], "the following arguments are required: --host"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], complaint: str, deploy: Callable[..., Answer], certificates: Path
) -> None:
    before = (certificates / "server.crt").read_bytes()
    answer = deploy("certificates", certificates, *arguments)
    assert answer.code == 2
    assert complaint in answer.err[-1]
    assert (certificates / "server.crt").read_bytes() == before


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_half_an_authority_is_not_replaced(lost: str, certificates: Path, deploy: Callable[..., Answer]) -> None:
    (certificates / lost).unlink()
    answer = deploy("certificates", certificates, "--host", "a")
    assert answer.code == 2
    assert f"but not {lost}" in answer.err[-1]
    assert not (certificates / lost).exists()


def test_an_authority_with_another_key_is_refused(certificates: Path, deploy: Callable[..., Answer]) -> None:
    assert deploy("certificates", "other", "--host", "a").code == 0
    (certificates / "ca.key").write_bytes(Path("other/ca.key").read_bytes())
    answer = deploy("certificates", certificates, "--host", "a")
    assert (answer.code, answer.err) == (
        2,
        [f"subfl deploy: {certificates}: ca.key is not the key of ca.crt; choose an empty folder"],
    )


def mix(certificates: Path, other: Path, names: list[str]) -> None:
    for name in names:
        (certificates / name).write_bytes((other / name).read_bytes())


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["server.key"], "server.key is not the key of server.crt"),
        (["server.key", "server.crt"], "server.crt is not signed by ca.crt"),
    ],
)
def test_what_does_not_belong_together_is_found(
    names: list[str], complaint: str, certificates: Path, deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    assert deploy("certificates", "other", "--host", "a").code == 0
    mix(certificates, tmp_path / "other", names)
    with pytest.raises(SubflError, match=complaint):
        check_certificates(certificates, "0.0.0.0")


def test_certificates_do_for_the_address_that_the_superlink_listens_on(certificates: Path) -> None:
    for host in ("0.0.0.0", "::", "127.0.0.1", "localhost", "superlink.example.org"):
        check_certificates(certificates, host)
    with pytest.raises(SubflError, match=r"--host 10\.0\.0\.7: .* is for superlink\.example\.org, localhost, 127"):
        check_certificates(certificates, "10.0.0.7")


def test_a_certificate_that_has_ended_is_refused(certificates: Path) -> None:
    authority = load(certificates / "ca.crt")
    signing = serialization.load_pem_private_key((certificates / "ca.key").read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    server = load(certificates / "server.crt")
    day = datetime.timedelta(days=1)
    ended = (
        x509.CertificateBuilder()
        .subject_name(server.subject)
        .issuer_name(authority.subject)
        .public_key(server.public_key())  # type: ignore[arg-type]
        .serial_number(1)
        .not_valid_before(authority.not_valid_before_utc - 9 * day)
        .not_valid_after(authority.not_valid_before_utc - 2 * day)
        .sign(signing, authority.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    (certificates / "server.crt").write_bytes(ended.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(SubflError, match=r"server\.crt is valid from .*, not now: renew it"):
        check_certificates(certificates, "0.0.0.0")


def test_a_missing_or_damaged_file_is_named(certificates: Path) -> None:
    (certificates / "server.crt").write_text("nothing")
    with pytest.raises(SubflError, match=r"server\.crt: it holds no certificate"):
        check_certificates(certificates, "0.0.0.0")
    (certificates / "server.crt").unlink()
    with pytest.raises(SubflError, match=r"server\.crt: No such file or directory; it must be a file"):
        check_certificates(certificates, "0.0.0.0")
