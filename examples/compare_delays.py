# /// script
# dependencies = ["voxmlx"]
# ///
"""Show what a longer delay buys: the same recording at four delays.

python examples/compare_delays.py AUDIO [MODEL]
"""

import sys

from voxmlx import load

model = load(sys.argv[2] if len(sys.argv) > 2 else "tiny")
for delay_ms in (80, 240, 480, 2400):
    result = model.generate(sys.argv[1], transcription_delay_ms=delay_ms)
    print(f"{delay_ms:5d} ms  RTF {result.timings.rtf:.3f}  {result.text}")
