# /// script
# dependencies = ["voxmlx"]
# ///
"""Transcribe one recording and print its words with their times.

python examples/transcribe_file.py AUDIO [MODEL]
"""

import sys

from voxmlx import load

model = load(sys.argv[2] if len(sys.argv) > 2 else "tiny")
result = model.generate(sys.argv[1])

print(result.text)
for word in result.words:
    print(f"{word.start_s:7.2f} {word.end_s:7.2f}  {word.confidence:.2f}  {word.text}")
