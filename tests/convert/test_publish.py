"""Uploads, to a stand-in for the hub on this machine."""

from __future__ import annotations

import pytest

from tests import tiny_checkpoints as tiny
from tests.hub_server import point_client_at, run_hub_server
from voxmlx.checkpoints.hub import resolve
from voxmlx.checkpoints.load import load_model, parameters
from voxmlx.errors import HubError
from voxmlx_convert.convert import Options, convert
from voxmlx_convert.publish import publish

REPO = "me/voxtral-mlx"

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with run_hub_server() as server:
        point_client_at(server, monkeypatch, tmp_path / "cache")
        yield server


@pytest.fixture
def folder(tmp_path):
    source = tiny.write_folder(tmp_path / "source", "native")
    return convert(str(source), tmp_path / "out", Options(repo=REPO)).folder


def test_upload_and_download_again(hub, folder):
    address = publish(folder, REPO)

    assert address.endswith("/me/voxtral-mlx/commit/0123456789abcdef0123456789abcdef01234567")
    assert set(hub.repos[REPO]) == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert hub.repos[REPO][path.name] == path.read_bytes(), path.name
    again = parameters(load_model(resolve(REPO)).model)
    assert set(again) == set(tiny.internal_weights())


def test_refused_upload(hub, folder):
    hub.gated.add(REPO)

    with pytest.raises(HubError) as info:
        publish(folder, REPO)
    assert str(info.value).startswith(f"{REPO}: the upload failed: ")
    assert "\n" not in str(info.value)


def test_upload_that_breaks_off(hub, folder):
    hub.refused_uploads = True

    with pytest.raises(HubError) as info:
        publish(folder, REPO)
    assert str(info.value).startswith(f"{REPO}: the upload failed: 403 Forbidden: quota exceeded.")
    assert "\n" not in str(info.value)


def test_invalid_name(hub, folder):
    with pytest.raises(HubError) as info:
        publish(folder, "a/b/c")
    assert str(info.value) == "'a/b/c': not a valid repository name (owner/name)"
