# /// script
# dependencies = ["voxmlx"]
# ///
"""Print text while a recording is still being decoded.

python examples/stream_text.py AUDIO [MODEL]
"""

import sys

from voxmlx import load

model = load(sys.argv[2] if len(sys.argv) > 2 else "tiny")
for text in model.generate(sys.argv[1], stream=True):
    print(text, end="", flush=True)
print()
