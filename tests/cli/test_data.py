"""``valleys data``: what it fetches, and what it says of what cannot be had. Whole runs: test_ready.py."""

import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import fill_defaults, load_config
from source_images import pictures
from valleys.cli import data
from valleys.cli.commands import main
from valleys.data.options import validate_dataset
from valleys.data.presence import IN_ROOT, lacking
from valleys.errors import ValleysError
from valleys.torchvision_compat import import_torchvision

SMOKE = load_config("config/smoke.yaml")


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """An archive as that of CIFAR-10, of a few images, where torchvision will look for it."""
    kind = import_torchvision("datasets").CIFAR10
    folder = tmp_path / "theirs" / kind.base_folder
    folder.mkdir(parents=True)
    for name, _ in (*kind.train_list, *kind.test_list):
        rows = pictures(3, 32, 32).transpose(0, 3, 1, 2).reshape(3, -1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [0, 1, 2]}))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({"label_names": list("abc")}))
    archive = tmp_path / kind.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, kind.base_folder)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(kind, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    monkeypatch.setattr(kind, "tgz_md5", None)
    monkeypatch.setattr(
        kind,
        "_check_integrity",
        lambda self: all((tmp_path / "root" / n).exists() for n in IN_ROOT["cifar10"]),
    )
    monkeypatch.setattr(kind, "_load_meta", lambda self: None)
    yield tmp_path / "root"
    server.shutdown()
    server.server_close()


def test_what_torchvision_has_is_fetched_whatever_download_says(cifar10):
    spec, said = validate_dataset("mine", {"source": "cifar10", "root": str(cifar10)}), []
    assert lacking(spec)
    data.fetch("mine", spec, said.append)
    assert said == [f"mine: fetching cifar10 into {cifar10}"]
    assert lacking(spec) == []
    data.fetch("mine", spec, pytest.fail)  # not again


def test_what_cannot_be_fetched_is_one_line(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(import_torchvision("datasets").SVHN, "download", refused)
    spec = validate_dataset("mine", {"source": "svhn", "root": str(tmp_path)})
    with pytest.raises(
        ValleysError, match=r"^svhn cannot .*network is unreachable.*check the network"
    ) as caught:
        data.fetch("mine", spec, lambda line: None)
    assert "\n" not in str(caught.value)


def test_other_sources_are_not_fetched():
    data.fetch("digits", fill_defaults(SMOKE)["datasets"]["digits"], pytest.fail)


def test_cores_and_configs_are_checked_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "none.yaml", "--cores", "many"]) == 1
    assert main(["data", "none.yaml"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: --cores: 'many' is not a whole number >= 1, nor 'all'"
    assert second.startswith("error: config file none.yaml does not exist")
