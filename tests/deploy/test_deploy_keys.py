import argparse
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from deploy_answers import Answer
from flwr.cli.supernode.register import try_load_public_key
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, sign_message, verify_signature
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

from subfl_flower.deploy.keys import check_private_key, check_public_key
from subfl_flower.errors import SubflError


def test_flower_reads_both_halves_of_the_pair(key: Path) -> None:
    public = bytes_to_public_key(try_load_public_key(key.with_name("node.pub")))
    arguments = argparse.Namespace(auth_supernode_private_key=str(key), auth_supernode_public_key=None)
    pair = _try_setup_client_authentication(arguments)
    assert pair is not None and pair[1] == public
    assert isinstance(public.curve, ec.SECP384R1)
    assert verify_signature(public, b"now", sign_message(pair[0], b"now"))
    check_private_key(key)
    check_public_key(key.with_name("node.pub"))


def test_the_private_half_is_its_owners_alone(key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("present", ["fresh", "fresh.pub"])
def test_a_key_is_never_replaced(present: str, deploy: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / present).write_text("precious")
    answer = deploy("key", "fresh")
    assert answer.code == 2
    assert answer.err[-1].startswith(f"subfl deploy: {present} is there already")
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_text() == "precious"


def test_what_is_no_key_is_refused(key: Path, certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"node is a private key, .* register node\.pub"):
        check_public_key(key)
    with pytest.raises(SubflError, match="must be a public key"):
        check_public_key(certificates / "ca.crt")
    with pytest.raises(SubflError, match="must be a private key"):
        check_private_key(key.with_name("node.pub"))
    with pytest.raises(SubflError, match="must be a private key"):
        check_private_key(certificates / "server.key")
    with pytest.raises(SubflError, match=r"--key .*nothing: No such file or directory"):
        check_private_key(tmp_path / "nothing")
