"""The two keys of a clone: one names people without naming them, the other signs."""

import hashlib
import hmac
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tasks.erasing import ErasureError

NAMES, SIGNING, PUBLIC = "names.key", "signing.pem", "public.pem"
UNUSED = "unused"  # lies beside keys that no ledger was begun with yet
LOST = (
    "without it no request can be tied to a person any more, and no further one be served under "
    "this ledger: bring it back from where you keep a copy; or, if it is lost, move erasure/ to an "
    "archive, where ledger and certificates can still be verified with public.pem, and begin anew"
)


@dataclass(frozen=True)
class Keys:
    """names: of HMACs. signing: of certificates and of the ledger's end."""

    names: bytes
    signing: Ed25519PrivateKey

    def pseudonym(self, kind: str, value: str) -> str:
        """HMAC-SHA256 of a value of that kind, such as an "id", in hexadecimal."""
        return hmac.new(self.names, f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()

    def sign(self, content: bytes) -> bytes:
        return self.signing.sign(content)

    @property
    def public(self) -> Ed25519PublicKey:
        return self.signing.public_key()


def create(folder: Path) -> Keys:
    """New keys, readable by their owner alone: all of them, or none."""
    making = folder.with_name(f".{folder.name}")
    shutil.rmtree(making, ignore_errors=True)  # left by a kill
    making.mkdir(parents=True, mode=0o700)
    signing = Ed25519PrivateKey.generate()
    private = signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, content in ((NAMES, os.urandom(32)), (SIGNING, private), (PUBLIC, public)):
        mode = 0o644 if name == PUBLIC else 0o600
        with open(os.open(making / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
    (making / UNUSED).touch()
    making.rename(folder)
    return read(folder)


def read(folder: Path) -> Keys:
    """Raises ErasureError where one is missing, damaged, or may be read by others."""
    for name in (NAMES, SIGNING):
        path = folder / name
        if not path.is_file():
            raise ErasureError(f"the key {path} is missing: {LOST}")
        if path.stat().st_mode & 0o077:
            raise ErasureError(f"the key {path} may be read by others: `chmod 600 {path}`")
    try:
        signing = load_pem_private_key((folder / SIGNING).read_bytes(), None)
    except ValueError as error:
        raise ErasureError(f"{folder / SIGNING} is no key: {error}") from error
    if not isinstance(signing, Ed25519PrivateKey):
        raise ErasureError(f"{folder / SIGNING} is no Ed25519 key")
    return Keys((folder / NAMES).read_bytes(), signing)


def read_public(path: Path) -> Ed25519PublicKey:
    """Raises ErasureError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ErasureError(f"{path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ErasureError(f"{path} is no Ed25519 key")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def signed(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
