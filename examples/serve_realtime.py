"""Live text from a running ``voxmlx serve``: a WAV file is sent at the speed of speech.

pip install websockets soundfile
voxmlx serve --model tiny &
python examples/serve_realtime.py talk.wav
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

import soundfile
from websockets.asyncio.client import connect

URL = "ws://127.0.0.1:8000/v1/realtime?intent=transcription&delay_ms=480"


async def send(socket, path: str) -> None:
    with soundfile.SoundFile(path) as file:
        audio = {"format": {"type": "audio/pcm", "rate": file.samplerate}}
        session = {"type": "transcription", "audio": {"input": audio}}
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        for block in file.blocks(file.samplerate // 10, dtype="int16", always_2d=True):
            data = base64.b64encode(block[:, 0].tobytes()).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": data}))
            await asyncio.sleep(0.1)
    await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))


async def main(path: str) -> None:
    async with connect(URL) as socket:
        sending = asyncio.create_task(send(socket, path))
        async for message in socket:
            event = json.loads(message)
            if event["type"].endswith("transcription.delta"):
                print(event["delta"], end="", flush=True)
            elif event["type"].endswith("transcription.completed"):
                print()
                break
            elif event["type"] == "error":
                raise SystemExit(event["error"]["message"])
        await sending


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
