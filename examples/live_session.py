# /// script
# dependencies = ["voxmlx"]
# ///
"""Feed a session piece by piece, as audio would come from a network or a device.

python examples/live_session.py AUDIO [MODEL]
"""

import sys

import soundfile

from voxmlx import SegmentEnd, load

model = load(sys.argv[2] if len(sys.argv) > 2 else "tiny")
session = model.stream(transcription_delay_ms=480)

samples, sample_rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
samples = samples.mean(axis=1)
chunk = sample_rate // 10
for start in range(0, len(samples), chunk):
    session.feed(samples[start : start + chunk], sample_rate=sample_rate)
    for event in session.step():
        if isinstance(event, SegmentEnd):
            print(f"[{event.segment.start_s:.1f}-{event.segment.end_s:.1f}] {event.segment.text}")

session.close()
while not session.done:
    session.step()
print(session.result().text)
