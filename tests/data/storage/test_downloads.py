from __future__ import annotations

import hashlib
from http.client import IncompleteRead
from pathlib import Path

import pytest

from flowexp.data import DataError
from flowexp.data.storage.downloads import check_md5, download
from flowexp.records.files.fingerprint import md5_of

CONTENTS = bytes(range(256)) * 9000  # more than one chunk
MD5 = hashlib.md5(CONTENTS).hexdigest()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    file = tmp_path / "site" / "file.zip"
    file.parent.mkdir()
    file.write_bytes(CONTENTS)
    return file


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_download_makes_its_folder_and_leaves_nothing_beside_it(site: Path, tmp_path: Path):
    target = tmp_path / "data" / "deep" / "file.zip"
    download(site.as_uri(), target, MD5)
    assert target.read_bytes() == CONTENTS and left_in(target.parent) == {"file.zip"}


@pytest.mark.parametrize("contents", [CONTENTS[:-1], b"", b"<html>busy</html>"], ids=["cut", "empty", "page"])
def test_a_wrong_download_is_never_taken_for_the_file(site: Path, tmp_path: Path, contents: bytes):
    site.write_bytes(contents)
    target = tmp_path / "data" / "file.zip"
    with pytest.raises(
        DataError, match=rf"file.zip is missing .*got {len(contents)} bytes with md5 .* instead of {MD5}"
    ):
        download(site.as_uri(), target, MD5)
    assert left_in(target.parent) == set()


def test_a_download_that_breaks_off_leaves_nothing(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def breaks_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowexp.data.storage.downloads.md5_of", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        download(site.as_uri(), tmp_path / "data" / "file.zip", MD5)
    assert left_in(tmp_path / "data") == set()


def test_what_a_killed_download_left_is_overwritten(site: Path, tmp_path: Path):
    (tmp_path / "file.zip.partial").write_bytes(CONTENTS * 2)
    download(site.as_uri(), tmp_path / "file.zip", MD5)
    assert (tmp_path / "file.zip").read_bytes() == CONTENTS


def test_a_file_that_is_there_is_not_fetched_again(tmp_path: Path):
    (tmp_path / "file.zip").write_bytes(b"mine")
    download((tmp_path / "no_such_site").as_uri(), tmp_path / "file.zip", MD5)
    assert (tmp_path / "file.zip").read_bytes() == b"mine"


def test_no_network_is_a_sentence_that_names_file_address_and_way_out(tmp_path: Path):
    address = (tmp_path / "no_such_site").as_uri()
    with pytest.raises(
        DataError, match=rf"data/file.zip is missing and .*from {address} .*put the file there, or choose"
    ):
        download(address, tmp_path / "data" / "file.zip", MD5)


def test_a_connection_that_breaks_is_a_sentence(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def breaks(*_: object, **__: object) -> None:
        raise IncompleteRead(b"", 7)

    monkeypatch.setattr("urllib.request.urlopen", breaks)
    with pytest.raises(DataError, match=r"could not be downloaded .*IncompleteRead.*put the file there"):
        download(site.as_uri(), tmp_path / "file.zip", MD5)


def test_a_place_that_cannot_be_written_is_a_sentence(site: Path, tmp_path: Path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="could not be downloaded"):
        download(site.as_uri(), tmp_path / "data" / "file.zip", MD5)


def test_check_md5_accepts_the_file_and_describes_any_other(site: Path):
    assert md5_of(site) == MD5
    check_md5(site, MD5)
    with pytest.raises(DataError, match=rf"md5 {MD5} instead of 0123, {len(CONTENTS)} bytes.*delete it.*data=digits"):
        check_md5(site, "0123")
