"""Transcribe a file through a running ``voxmlx serve`` with OpenAI's own client.

pip install openai
voxmlx serve --model tiny &
python examples/serve_openai.py talk.mp3
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main() -> None:
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="not needed on this machine")
    with open(sys.argv[1], "rb") as file:
        stream = client.audio.transcriptions.create(model="voxtral", file=file, stream=True)
        for event in stream:
            if event.type == "transcript.text.delta":
                print(event.delta, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
