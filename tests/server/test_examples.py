"""The examples run against a server as they stand."""

from __future__ import annotations

import plistlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.running import wav

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "name, package", [("serve_openai", "openai"), ("serve_realtime", "websockets")]
)
def test_example(server, speech, tmp_path, name, package):
    pytest.importorskip(package)
    recording = tmp_path / "talk.wav"
    recording.write_bytes(wav(speech))
    source = (EXAMPLES / f"{name}.py").read_text()
    assert "127.0.0.1:8000" in source
    script = tmp_path / f"{name}.py"
    script.write_text(source.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
    out = subprocess.run(
        [sys.executable, script, recording], capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0, out.stderr
    assert len(out.stdout) > 10


def test_launchd_file_is_a_property_list():
    agent = plistlib.loads((EXAMPLES / "deploy" / "org.voxmlx.serve.plist").read_bytes())
    assert agent["ProgramArguments"][1] == "serve"
