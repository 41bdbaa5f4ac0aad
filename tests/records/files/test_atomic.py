"""Files that are written whole or not at all."""

import json
import os
import threading
from pathlib import Path

import pytest

from flowexp.records.files import atomic


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "below" / "file.txt"
    with atomic.replacing(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_what_stood_there_survives_an_error(tmp_path):
    path = tmp_path / "file.json"
    atomic.write_json(path, {"step": 1})
    with pytest.raises(OSError, match="no space"), atomic.replacing(path) as partial:
        partial.write_text("{")
        raise OSError("no space left")
    assert json.loads(path.read_text()) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_and_is_left_out_after_an_error(tmp_path):
    folder = tmp_path / "cache"
    with pytest.raises(RuntimeError), atomic.replacing(folder) as partial:
        partial.mkdir()
        (partial / "a").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with atomic.replacing(folder) as partial:
        partial.mkdir()
        (partial / "a").write_text("1")
    assert (folder / "a").read_text() == "1"


def test_writers_of_one_file_do_not_share_a_partial_file(tmp_path):
    path = tmp_path / "file.txt"
    together = threading.Barrier(2)

    def write(text):
        with atomic.replacing(path) as partial:
            partial.write_text(text)
            together.wait(timeout=30)

    threads = [threading.Thread(target=write, args=(text * 1000,)) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_behind_a_link_the_file_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    for target in (tmp_path / "disk/file.txt", tmp_path / "disk/new.txt"):  # the second is not there yet
        link = tmp_path / f"link_to_{target.name}"
        link.symlink_to(target)
        atomic.write_text(link, "text")
        assert link.is_symlink() and target.read_text() == "text"
    assert len(list((tmp_path / "disk").iterdir())) == 2


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    written = []
    reader = threading.Thread(target=lambda: written.append((tmp_path / "pipe").read_text()))
    reader.start()
    atomic.write_text(tmp_path / "pipe", "text")
    reader.join(timeout=30)
    assert written == ["text"] and (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_what_a_shell_has_opened_is_not_replaced(capfd):
    atomic.write_text(Path("/dev/stdout"), "text")
    atomic.write_text(Path(os.devnull), "nothing")
    assert capfd.readouterr().out == "text" and Path(os.devnull).is_char_device()
