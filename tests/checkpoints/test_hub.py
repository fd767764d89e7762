"""Downloads, from a stand-in for the hub on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from tests import tiny_checkpoints as tiny
from tests.hub_server import COMMIT, point_client_at, run_hub_server
from voxmlx.checkpoints.hub import resolve
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.errors import HubError

REPO = "someone/Voxtral-tiny"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A repository as the release is: both weight files and more."""
    folder = tmp_path_factory.mktemp("release")
    tiny.write_folder(folder, "native")
    tiny.write_folder(folder, "hf")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "README.md": b"# card", "audio.wav": b"RIFF", "processor_config.json": b"{}"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with run_hub_server() as server:
        point_client_at(server, monkeypatch, tmp_path / "cache")
        yield server


def test_download_takes_only_what_is_needed(hub, release):
    hub.repos[REPO] = release

    folder = resolve(REPO)

    needed = {"model.safetensors", "config.json", "params.json", "tekken.json"}
    assert hub.fetched() == needed
    assert {path.name for path in folder.iterdir()} == needed
    got = parameters(load_model(folder).model)
    name = "decoder.layers.0.attention.q_proj.weight"
    assert np.array_equal(np.asarray(got[name]), tiny.internal_weights()[name])


def test_download_of_native_weights_alone(hub, release):
    without = ("model.safetensors", "config.json")
    hub.repos[REPO] = {n: data for n, data in release.items() if n not in without}

    assert load_model(resolve(REPO)).layout.name == "Mistral"


def test_download_of_shards(hub, release):
    hub.repos[REPO] = {
        "model-00001-of-00002.safetensors": b"1",
        "model-00002-of-00002.safetensors": b"2",
        "model.safetensors.index.json": b"{}",
        "consolidated.safetensors": b"3",
        "config.json": release["config.json"],
        "tekken.json": release["tekken.json"],
    }

    resolve(REPO)

    assert "consolidated.safetensors" not in hub.fetched()
    assert {"model-00002-of-00002.safetensors", "model.safetensors.index.json"} <= hub.fetched()


def test_second_time_fetches_nothing(hub, release):
    hub.repos[REPO] = release
    first = resolve(REPO)
    hub.requests.clear()

    assert resolve(REPO) == first
    assert hub.fetched() == set()


def test_revision_is_passed_on(hub, release):
    hub.repos[REPO] = release

    assert resolve(REPO, revision=COMMIT).name == COMMIT


def test_interrupted_download_resumes(hub, release, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    hub.repos[REPO] = release
    hub.cut["model.safetensors"] = 1_000_000

    folder = resolve(REPO)

    sent = [r for r in hub.requests if r.startswith("GET") and "model.safetensors" in r]
    assert len(sent) == 2
    assert sent[1].endswith(" bytes=1000000-")
    assert (folder / "model.safetensors").read_bytes() == release["model.safetensors"]


def test_no_progress_bars_in_a_pipe(hub, release, capfd):
    hub.repos[REPO] = release

    resolve(REPO)

    assert capfd.readouterr().err == ""


def test_offline_uses_the_cache(hub, release, monkeypatch, caplog):
    caplog.set_level("INFO")
    hub.repos[REPO] = release
    folder = resolve(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()

    assert resolve(REPO) == folder
    assert hub.requests == []
    assert f"{REPO}: using the copy in the cache" in caplog.text


def test_hub_that_fails_uses_the_cache(hub, release, caplog):
    hub.repos[REPO] = release
    folder = resolve(REPO)
    hub.broken = True

    assert resolve(REPO) == folder
    assert f"{REPO}: using the copy in the cache" in caplog.text


def test_incomplete_copy_in_the_cache_is_not_used(hub, release, monkeypatch):
    hub.repos[REPO] = release
    folder = resolve(REPO)
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(HubError) as info:
        resolve(REPO)
    assert str(info.value).startswith(f"{REPO}: not in the cache, and the download failed: ")


def test_offline_without_a_copy(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(HubError) as info:
        resolve(REPO)
    assert str(info.value).startswith(f"{REPO}: not in the cache, and the download failed: ")
    assert "\n" not in str(info.value)


def test_unknown_repository(hub):
    with pytest.raises(HubError) as info:
        resolve(REPO)

    assert str(info.value) == (
        f"{REPO}: no such repository, or a private one; for that, run 'hf auth login' first"
    )


def test_unknown_revision(hub, release):
    hub.repos[REPO] = release

    with pytest.raises(HubError) as info:
        resolve(REPO, revision="v9")
    assert str(info.value) == f"{REPO} at 'v9': no such branch, tag or commit"


def test_gated_repository(hub):
    hub.gated.add(REPO)

    with pytest.raises(HubError) as info:
        resolve(REPO)
    assert str(info.value) == (
        f"{REPO}: access is not granted; accept its terms on its page, then run 'hf auth login'"
    )


def test_repository_without_a_model(hub):
    hub.repos[REPO] = {"README.md": b"# nothing"}

    with pytest.raises(HubError) as info:
        resolve(REPO)
    assert str(info.value) == f"{REPO}: no weights beside a config.json or params.json"


def test_invalid_repository_name(hub):
    with pytest.raises(HubError) as info:
        resolve("a/b..c")

    assert str(info.value) == "a/b..c: not a valid repository name"


def test_local_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "someone" / "Voxtral-tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert resolve(REPO) == Path(REPO)


def test_home_is_expanded(tmp_path, monkeypatch):
    (tmp_path / "model ünï").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))

    assert resolve("~/model ünï") == tmp_path / "model ünï"


def test_a_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")

    with pytest.raises(HubError) as info:
        resolve(path)
    assert str(info.value) == f"{path}: a file; give the folder that holds it"


@pytest.mark.parametrize("name", ["no-such-model", "./no/such/folder", "/no/such", ""])
def test_neither_folder_nor_repository(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(HubError) as info:
        resolve(name)
    assert str(info.value) == (
        f"{name!r}: no such folder, and not a repository's name (owner/name)"
    )


def test_tiny_is_part_of_the_package():
    assert resolve("tiny").parts[-3:] == ("voxmlx", "assets", "tiny")
