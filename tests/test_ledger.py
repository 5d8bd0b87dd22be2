"""The ledger of erasures, its keys, and certificates."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import erase
from flows.erasing.office import Office, open_office
from tasks.erasing import ErasureError, certificate, keys, ledger
from tasks.files import artifacts
from tests.erasures import ADA, Pretended, checked, laid_out, served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return laid_out(tmp_path)


@pytest.fixture
def book(root: Path) -> Path:
    served(root, Pretended(root, imu_deep="indistinguishable"), ADA)
    return root / "erasure"


def rewritten(book: Path, change: Any) -> list[str]:
    path = book / ledger.FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")
    return ledger.verify(book, keys.read_public(book / "keys" / "public.pem"))


def test_a_whole_ledger_is_found_whole(book: Path) -> None:
    assert rewritten(book, lambda lines: lines) == []


def test_a_changed_record_is_named(book: Path) -> None:
    def change(lines: list[str]) -> list[str]:
        return [line.replace('"passed":true', '"passed":false') for line in lines]

    assert rewritten(book, change) == ["record 5 was changed"]


def test_a_record_that_was_replaced_with_its_hash_is_named(book: Path) -> None:
    def change(lines: list[str]) -> list[str]:
        record = json.loads(lines[4]) | {"passed": False}
        lines[4] = json.dumps(record | {"hash": ledger.hashed(record)})
        return lines

    assert rewritten(book, change) == [
        "record 5 is not signed by this key",
        "record 6 does not follow from the one before, which was replaced",
    ]


def test_a_record_that_nobody_signed_is_neither_accepted_nor_signed(book: Path, root: Path) -> None:
    def forge(lines: list[str]) -> list[str]:
        last = json.loads(lines[-1])
        record = last | {"n": 10, "step": "deployed", "before": last["hash"]}
        return [*lines, json.dumps(record | {"hash": ledger.hashed(record)})]

    assert rewritten(book, forge) == ["record 10 is not signed by this key"]
    with pytest.raises(ErasureError, match="not signed"), open_office(root):
        pass
    assert artifacts.read_json(book / ledger.HEAD)["records"] == 9


def test_a_gap_is_named(book: Path) -> None:
    problems = rewritten(book, lambda lines: lines[:3] + lines[5:])
    assert problems[0] == "records 4 to 5 are missing before record 6"


def test_a_cut_is_named(book: Path) -> None:
    assert rewritten(book, lambda lines: lines[:-1]) == [
        "records after 8 were cut off: head.json signs 9"
    ]


def test_an_older_ledger_with_its_own_end_is_found_by_the_certificate(
    book: Path, root: Path
) -> None:
    path, key = book / "requests/0001/certificate.json", keys.read_public(book / "keys/public.pem")
    kept = ledger.records(book)
    (book / ledger.FILE).write_bytes(b"".join(ledger.canonical(r) + b"\n" for r in kept[:7]))
    (book / ledger.HEAD).unlink()
    end = {"records": 7, "hash": kept[6]["hash"]}
    sign = keys.read(book / "keys").sign(ledger.canonical(end)).hex()
    artifacts.write_json(book / ledger.HEAD, {**end, "signature": sign})
    assert ledger.verify(book, key) == []
    with pytest.raises(ErasureError, match="another record 8"):
        checked(path, key)


def test_a_line_that_a_full_disk_cut_short_is_dropped(book: Path, root: Path) -> None:
    with (book / ledger.FILE).open("a") as file:
        file.write('{"n":10,"requ')
    with open_office(root) as now:
        assert len(now.ledger.records) == 9
    assert ledger.verify(book, keys.read_public(book / "keys" / "public.pem")) == []


def test_a_signed_record_is_not_dropped(book: Path, root: Path) -> None:
    path = book / ledger.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with open_office(root) as now:
        assert len(now.ledger.records) == 9
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-9])
    with pytest.raises(ErasureError, match="line 9"), open_office(root):
        pass
    assert path.read_bytes() == whole[:-9]


@pytest.mark.parametrize("line", [b'{"n":"x"}', b"[" * 99_999, b"\xff"])
def test_a_line_that_is_no_record_is_named(book: Path, line: bytes) -> None:
    with (book / ledger.FILE).open("ab") as file:
        file.write(line + b"\n")
    (said,) = ledger.verify(book, keys.read_public(book / "keys" / "public.pem"))
    assert "line 10" in said


@pytest.mark.parametrize("content", ["", "[]", '{"records":1,"hash":"x","signature":"zz"}'])
def test_a_damaged_end_is_named(book: Path, content: str) -> None:
    (book / ledger.HEAD).write_text(content)
    (said,) = ledger.verify(book, keys.read_public(book / "keys" / "public.pem"))
    assert "head.json is damaged" in said


def test_a_ledger_that_was_removed_is_missed(book: Path, root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    first = (book / ledger.FILE).read_bytes().splitlines(keepends=True)[0]
    (book / ledger.HEAD).unlink()
    (book / ledger.FILE).write_bytes(first)
    with pytest.raises(SystemExit, match=r"head\.json is missing"):
        erase.main(["verify-ledger"])
    (book / ledger.FILE).unlink()
    for command in ("verify-ledger", "status"):
        with pytest.raises(SystemExit, match="there is no ledger"):
            erase.main([command])
    with pytest.raises(ErasureError, match="is missing"):
        Office(root)
    shutil.rmtree(book / "requests")
    with pytest.raises(ErasureError, match="is missing"):
        Office(root)


def test_a_status_creates_nothing(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    erase.main(["status"])
    assert not (root / "erasure").exists()


def test_a_kill_between_keys_and_ledger_is_gone_on_from(root: Path) -> None:
    keys.create(root / "erasure" / "keys")
    Office(root)
    assert not (root / "erasure" / "keys" / keys.UNUSED).exists()


def test_an_auditor_needs_the_public_key_alone(book: Path, root: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(root)
    for name in (keys.NAMES, keys.SIGNING):
        (book / "keys" / name).unlink()
    before = sorted(root.rglob("*"))
    erase.main(["verify", "erasure/requests/0001/certificate.json"])
    erase.main(["verify-ledger"])
    erase.main(["status"])
    assert "is the model of the certificate, and is served" in capsys.readouterr().out
    assert sorted(root.rglob("*")) == before


def test_a_full_disk_leaves_no_half_record(book: Path, root: Path, monkeypatch) -> None:
    with open_office(root) as now:
        size = (book / ledger.FILE).stat().st_size

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ledger.os, "fsync", full)
        with pytest.raises(artifacts.ArtifactError, match="No space left"):
            now.ledger.append(2, "received")
        assert (book / ledger.FILE).stat().st_size == size


def test_another_key_is_refused(book: Path, root: Path, tmp_path: Path) -> None:
    keys.create(tmp_path / "others")
    (tmp_path / "others" / keys.NAMES).replace(book / "keys" / keys.NAMES)
    with pytest.raises(ErasureError, match="another key"), open_office(root):
        pass


def test_a_lost_key_is_explained_and_not_replaced(book: Path, root: Path) -> None:
    (book / "keys" / keys.NAMES).unlink()
    with pytest.raises(ErasureError, match=r"names\.key is missing: .*bring it back"):
        Office(root)
    assert not (book / "keys" / keys.NAMES).exists()


def test_keys_that_a_kill_left_half_are_made_anew(root: Path) -> None:
    (root / "erasure" / ".keys").mkdir(parents=True)
    (root / "erasure" / ".keys" / keys.NAMES).write_bytes(b"half")
    assert len(Office(root).keys.names) == 32


def test_keys_are_for_their_owner_alone(book: Path, root: Path) -> None:
    for name in (keys.NAMES, keys.SIGNING):
        assert (book / "keys" / name).stat().st_mode & 0o777 == 0o600
    (book / "keys" / keys.SIGNING).chmod(0o644)
    with pytest.raises(ErasureError, match="chmod 600"):
        Office(root)


# Certificates.


def test_a_forged_certificate_is_refused(book: Path, tmp_path: Path) -> None:
    path, key = book / "requests/0001/certificate.json", keys.read_public(book / "keys/public.pem")
    content = certificate.opened(path, key)
    content["predicate"]["verdict"] = "forgotten for good"
    forged = tmp_path / "forged.json"
    artifacts.write_json(forged, certificate.sealed(content, keys.create(tmp_path / "others")))
    with pytest.raises(ErasureError, match="forged, or was signed by another key"):
        certificate.opened(forged, key)
    artifacts.write_json(forged, certificate.sealed(content, keys.read(book / "keys")))
    with pytest.raises(ErasureError, match="another certificate for request 1"):
        checked(forged, key, book)
    forged.write_text("{}")
    with pytest.raises(ErasureError, match="is no certificate"):
        certificate.opened(forged, key)


def test_without_a_ledger_a_certificate_does_not_pass_as_if_all_were_checked(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "auditor").mkdir()
    monkeypatch.chdir(tmp_path / "auditor")
    call = ["verify", str(book / "requests/0001/certificate.json")]
    call += ["--key", str(book / "keys/public.pem")]
    with pytest.raises(SystemExit, match=r"there is no ledger .*cannot be checked"):
        erase.main(call)
    erase.main([*call, "--no-ledger"])
    assert "not checked: its place in the ledger" in capsys.readouterr().out
    assert not list((tmp_path / "auditor").iterdir())
