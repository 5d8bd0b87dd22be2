"""The ledger: one line of JSON per step, each with the hash of the one before; never rewritten.

    hash_n = SHA-256(canonical JSON of record n without hash and sig, which holds hash_{n-1})
    sig_n = Ed25519 signature of hash_n, in hexadecimal

``head.json`` says how many records there are and the last hash, signed; it is written after the
record, so that it may be one behind. That the last records were cut off shows there.
"""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tasks.erasing import ErasureError
from tasks.erasing.keys import Keys, fingerprint, signed
from tasks.files import artifacts

FILE, HEAD = "ledger.jsonl", "head.json"
BEGIN = "0" * 64  # what the first record follows
OPENED = "opened"  # the first step: by which keys


def canonical(content: Any) -> bytes:
    """The one form in which content is hashed and signed."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def hashed(record: dict[str, Any]) -> str:
    return hashlib.sha256(
        canonical({name: value for name, value in record.items() if name not in ("hash", "sig")})
    ).hexdigest()


class Records:
    """The records in ``folder``, to be read with the public key alone."""

    def __init__(self, folder: Path, key: Ed25519PublicKey):
        """Raises ErasureError where there are none, or they do not hold together."""
        require_whole(folder, key)
        self.folder, self.records = folder, records(folder)

    def of(self, request: int, step: str = "") -> list[dict[str, Any]]:
        """The records of a request since it was received last; of one step, where it is named."""
        found: list[dict[str, Any]] = []
        for record in self.records:
            if record["request"] == request:
                found = [record] if record["step"] == "received" else [*found, record]
        return [record for record in found if step in ("", record["step"])]

    def all(self, step: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["step"] == step]


class Ledger(Records):
    """The records in ``folder``, to which one process at a time appends."""

    def __init__(self, folder: Path, keys: Keys):
        """Raises ErasureError where it does not hold together, or was begun with other keys.

        A last line that a kill or a full disk cut short is removed: its step was not recorded,
        and is done again. One that is signed is not.
        """
        self.folder, self.keys = folder, keys
        if (folder / FILE).is_file():
            _mend(folder)
            require_whole(folder, keys.public)
        self.records = records(folder)
        mine = {"names": keys.pseudonym("key", ""), "signing": fingerprint(keys.public)}
        if not self.records:
            self.append(0, OPENED, keys=mine)
        elif self.records[0]["keys"] != mine:
            raise ErasureError(
                f"{folder / FILE} was begun with another key than {folder / 'keys'} holds: "
                "bring back the one that belongs to it"
            )
        self._point()

    def append(self, request: int, step: str, **facts: Any) -> dict[str, Any]:
        """Add a record, on disk before this returns. Raises ArtifactError where that fails."""
        own: dict[str, Any] = {
            "n": len(self.records) + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "request": request,
            "step": step,
            "before": self.records[-1]["hash"] if self.records else BEGIN,
        }
        if taken := {*own, "hash", "sig"} & facts.keys():
            raise ValueError(
                f"a fact must not be called {taken.pop()!r}, as a field of every record"
            )
        record = own | facts
        record["hash"] = hashed(record)
        record["sig"] = self.keys.sign(str(record["hash"]).encode()).hex()
        path = self.folder / FILE
        size = path.stat().st_size if path.is_file() else 0
        try:
            with path.open("ab", buffering=0) as file:
                line = canonical(record) + b"\n"
                if file.write(line) != len(line):
                    raise OSError("no space left")
                os.fsync(file.fileno())
        except OSError as error:
            if path.is_file():
                os.truncate(path, size)
            raise artifacts.ArtifactError(f"{path} could not be written: {error}") from error
        self.records.append(record)
        self._point()
        return record

    def _point(self) -> None:
        end = {"records": len(self.records), "hash": self.records[-1]["hash"]}
        signature = self.keys.sign(canonical(end)).hex()
        artifacts.write_json(self.folder / HEAD, {**end, "signature": signature})


def require_whole(folder: Path, key: Ed25519PublicKey) -> None:
    if problems := verify(folder, key):
        raise ErasureError("the ledger does not hold together: " + "; ".join(problems))


def verify(folder: Path, key: Ed25519PublicKey) -> list[str]:
    """What is wrong with the ledger in ``folder``, each in a sentence; [] where it is whole."""
    problems, last, expected, hashes = [], BEGIN, 1, [BEGIN]
    if not (folder / FILE).is_file():
        return [f"there is no ledger: {folder / FILE} is missing"]
    try:
        found = records(folder)
    except ErasureError as error:
        return [str(error)]
    for record in found:
        n = record["n"]
        if n != expected:
            missing = (
                f"record {expected} is"
                if n == expected + 1
                else (f"records {expected} to {n - 1} are")
            )
            problems.append(
                f"{missing} missing before record {n}"
                if n > expected
                else f"record {n} stands where record {expected} must be"
            )
        if hashed(record) != record["hash"]:
            problems.append(f"record {n} was changed")
        elif not _is_signed(record, key):
            problems.append(f"record {n} is not signed by this key")
        elif record["before"] != last and n == expected:
            problems.append(f"record {n} does not follow from the one before, which was replaced")
        last, expected = record["hash"], n + 1
        hashes.append(last)
    return problems + _against_head(folder, key, hashes)


def _is_signed(record: dict[str, Any], key: Ed25519PublicKey) -> bool:
    try:
        signature = bytes.fromhex(record["sig"])
    except (KeyError, TypeError, ValueError):
        return False
    return signed(key, signature, record["hash"].encode())


def _against_head(folder: Path, key: Ed25519PublicKey, hashes: list[str]) -> list[str]:
    count = len(hashes) - 1
    try:
        head = _head(folder)
    except ErasureError as error:
        return [str(error)]
    if not head:
        return (
            ["head.json is missing, which signs the end"]
            if count > 1 or (folder / "requests").exists()
            else []
        )
    said = {"records": head["records"], "hash": head["hash"]}
    if not signed(key, head["signature"], canonical(said)):
        return ["the signature in head.json is not that of this key"]
    if head["records"] > count:
        return [f"records after {count} were cut off: head.json signs {head['records']}"]
    if hashes[head["records"]] != head["hash"]:
        return [f"record {head['records']} is not the one that head.json signs"]
    if count > head["records"] + 1:
        return [f"records after {head['records'] + 1} were added without being signed"]
    return []


def _mend(folder: Path) -> None:
    path = folder / FILE
    whole, newline, torn = path.read_bytes().rpartition(b"\n")
    if not torn:
        return
    try:
        json.loads(torn)
    except (ValueError, RecursionError):
        if whole.count(b"\n") + len(newline) >= (_head(folder) or {"records": 0})["records"]:
            os.truncate(path, len(whole) + len(newline))
    else:
        with path.open("ab") as file:
            file.write(b"\n")


def _head(folder: Path) -> dict[str, Any] | None:
    """Raises ErasureError where it is not what it must be."""
    if not (folder / HEAD).is_file():
        return None
    try:
        head = artifacts.read_json(folder / HEAD)
        return {
            "records": int(head["records"]),
            "hash": str(head["hash"]),
            "signature": bytes.fromhex(head["signature"]),
        }
    except (artifacts.ArtifactError, LookupError, TypeError, ValueError) as error:
        raise ErasureError(f"{folder / HEAD} is damaged: {error}") from error


def records(folder: Path) -> list[dict[str, Any]]:
    """Raises ErasureError for a line that is no record."""
    path, found = folder / FILE, []
    if not path.is_file():
        return []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = json.loads(line)
            if not {"n", "hash", "before", "request", "step"} <= record.keys():
                raise ValueError("a field is missing")
            if type(record["n"]) is not int:
                raise ValueError("n is no number")
            canonical(record)
        except (ValueError, AttributeError, RecursionError) as error:
            raise ErasureError(f"line {number} of {path} is no record: {error}") from error
        found.append(record)
    return found
