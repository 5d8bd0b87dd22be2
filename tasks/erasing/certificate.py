"""What was done about a request, signed: an in-toto statement in a DSSE envelope.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md,
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Signed are the bytes

    PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tasks.erasing import ErasureError, ledger
from tasks.erasing.keys import Keys, fingerprint, signed
from tasks.files import artifacts

TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:imu:erasure:1"
PROVES = (
    "That whoever holds the signing key stated this, at this place of the ledger, and that neither "
    "has changed since.",
    "Which model file took the place of which, as SHA-256.",
    "What the tests said that were made of the new model, against models that were trained "
    "without the samples.",
)
PROVES_NOT = (
    "That nothing of the samples is left in the model: a verdict is evidence from the tests that "
    "were made, not a guarantee. Where the method is retraining, the model never saw them.",
    "That no copy exists that the scan does not know: backups, screenshots, models that were "
    "given away, other people's clones.",
    "Who asked, and whether he was entitled to: only the HMACs are known.",
    "That the times are right: they are those of the machine's clock.",
)


def statement(subject: dict[str, str], predicate: dict[str, Any]) -> dict[str, Any]:
    """subject: name of a model -> SHA-256 of its file."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in subject.items()],
        "predicateType": PREDICATE,
        "predicate": predicate,
    }


def sealed(content: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """The envelope around a statement."""
    payload = ledger.canonical(content)
    signature = {
        "keyid": fingerprint(keys.public),
        "sig": base64.b64encode(keys.sign(_signed_bytes(TYPE, payload))).decode(),
    }
    return {
        "payloadType": TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [signature],
    }


def opened(path: Path, key: Ed25519PublicKey) -> dict[str, Any]:
    """The statement in the certificate ``path``.

    Raises ErasureError where it is no certificate, or ``key`` did not sign it.
    """
    try:
        envelope = artifacts.read_json(path)
        payload = base64.b64decode(envelope["payload"], validate=True)
        kind = str(envelope["payloadType"])
        kind.encode()
        given = [base64.b64decode(s["sig"], validate=True) for s in envelope["signatures"]]
        content: dict[str, Any] = json.loads(payload)
    except artifacts.ArtifactError as error:  # which tells how a stage's output is made again
        raise ErasureError(f"{path} is no certificate, or there is none") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ErasureError(f"{path} is no certificate: {error}") from error
    if not any(signed(key, signature, _signed_bytes(kind, payload)) for signature in given):
        raise ErasureError(
            f"{path} is forged, or was signed by another key than {fingerprint(key)[:16]}…: it "
            "says nothing"
        )
    if kind != TYPE or (content["_type"], content["predicateType"]) != (STATEMENT, PREDICATE):
        raise ErasureError(f"{path} is signed, but is no certificate of erasure")
    return content


def placed(path: Path, said: dict[str, Any], key: Ed25519PublicKey, folder: Path) -> list[str]:
    """What was found good about the place of a certificate in the ledger, in sentences.

    said: its predicate. folder: of the ledger. Raises ErasureError at what is not good.
    """
    if not (folder / ledger.FILE).is_file():
        raise ErasureError(
            f"there is no ledger in {folder}, so the place of {path} in it cannot be checked: run "
            "this in the clone that has it, or say --no-ledger"
        )
    ledger.require_whole(folder, key)
    records, place, number = ledger.records(folder), said["ledger"], said["request"]
    if len(records) < place["position"] or records[place["position"] - 1]["hash"] != place["hash"]:
        raise ErasureError(
            f"the ledger has another record {place['position']} than the certificate was written "
            "after: it is not the ledger of then"
        )
    good = f"the ledger holds together, {len(records)} records; this is request {number}"
    own = [r for r in records if r["request"] == number and r["step"] == "certified"]
    if digest(path) not in [record["certificate"] for record in own]:
        raise ErasureError(f"the ledger records another certificate for request {number}, or none")
    is_last = digest(path) == own[-1]["certificate"]
    later = "" if is_last else "; a later one of the same request was written after a purge"
    return [good, f"the ledger records this very certificate{later}"]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _signed_bytes(kind: str, payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
