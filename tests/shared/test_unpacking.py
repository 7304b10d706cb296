"""Archives and files that are there: unpacked, found damaged, named where one is lost."""

import signal
import subprocess
import sys
import tarfile
import textwrap

import pytest

from shared.data.loading import load_data
from tests.shared.archives import (
    cifar10_members,
    config_for,
    contents,
    expect_one_line,
    publish,
    tgz,
)


def test_extraction_killed_in_the_middle(server, cache, cifar10):
    """A process that is really killed (SIGKILL, so that no clean-up runs) after it extracted two of six members."""
    archive = cache / "cifar-10-binary.tar.gz"
    cache.mkdir()
    archive.write_bytes(server.files["cifar-10-binary.tar.gz"])
    script = textwrap.dedent("""
        import os, signal, sys, tarfile
        from pathlib import Path
        from shared.data import download
        from shared.data.definitions import DEFINITIONS
        extract, done = tarfile.TarFile.extract, []
        def extract_two(*args, **options):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(extract(*args, **options))
        tarfile.TarFile.extract = extract_two
        download.unpack_archive(Path(sys.argv[1]), DEFINITIONS["cifar10"], is_ours=True)
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(archive)], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sum(name.endswith(".bin") for name in contents(cache)) == 2
    assert not (cache / "cifar-10-batches-bin").exists()

    assert len(load_data(cifar10).test) == 20
    assert server.requests == []  # the archive was whole
    assert contents(cache) == ["cifar-10-batches-bin", *sorted(cifar10_members())]


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize("evil", [
    {"../evil.bin": b"x"},
    {"cifar-10-batches-bin/../../../evil.bin": b"x"},
    {"cifar-10-batches-bin/out": link("cifar-10-batches-bin/out", "../../.."),
     "cifar-10-batches-bin/out/evil.bin": b"x"},
    {"cifar-10-batches-bin/alias.bin": link("cifar-10-batches-bin/alias.bin", "test_batch.bin")},
], ids=["parent", "parent from within", "through a link", "any link"])
def test_member_that_would_leave_the_folder(server, cache, cifar10, monkeypatch, tmp_path, evil):
    publish(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": tgz(cifar10_members() | evil)})
    expect_one_line(cifar10, "cannot be unpacked")
    assert contents(tmp_path) == ["cache"]


def test_damaged_archive_in_the_cache_is_deleted(server, cache, cifar10):
    cache.mkdir()
    whole = server.files["cifar-10-binary.tar.gz"]
    (cache / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    expect_one_line(cifar10, "cifar-10-binary.tar.gz", "it was deleted; run again")
    assert contents(cache) == []
    assert len(load_data(cifar10).test) == 20


def test_user_archive_is_unpacked_and_kept(server, tmp_path, cifar10):
    own = tmp_path / "own"
    own.mkdir()
    (own / "cifar-10-binary.tar.gz").write_bytes(server.files["cifar-10-binary.tar.gz"])
    assert len(load_data(config_for("cifar10", own)).test) == 20
    assert contents(own) == ["cifar-10-batches-bin", *sorted(cifar10_members()), "cifar-10-binary.tar.gz"]
    assert server.requests == []


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-20],
    lambda whole: whole[:-8] + bytes(4) + whole[-4:],  # only gzip's checksum, after the end of the last member, tells
], ids=["truncated", "changed"])
def test_damaged_user_archive_is_left_alone(server, tmp_path, cifar10, damage):
    own = tmp_path / "own"
    own.mkdir()
    (own / "cifar-10-binary.tar.gz").write_bytes(damage(server.files["cifar-10-binary.tar.gz"]))
    expect_one_line(config_for("cifar10", own), "delete it and get", server.address("cifar-10-binary.tar.gz"))
    assert contents(own) == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_root_with_the_files_is_read_and_never_filled(server, tmp_path, cifar10, below):
    own = tmp_path / "own"
    for name, content in cifar10_members().items():
        (own / below).mkdir(parents=True, exist_ok=True)
        (own / below / name.rpartition("/")[2]).write_bytes(content)
    assert len(load_data(config_for("cifar10", own)).test) == 20
    lost = own / below / "data_batch_3.bin"
    lost.unlink()
    expect_one_line(config_for("cifar10", own), str(lost), server.address("cifar-10-binary.tar.gz"))
    assert server.requests == []


def test_file_lost_from_the_cache_is_named(server, cache, cifar10):
    load_data(cifar10)
    (cache / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    expect_one_line(cifar10, "data_batch_3.bin", "delete the folder")
    assert len(server.requests) == 1
