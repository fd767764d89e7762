"""A process of its own that decodes one untrusted file: ``python -m voxmlx.server.decode_worker``.

It reads the file on standard input and writes float32 samples at 16 kHz, mono, to standard output.
Whatever a hostile file does, it does within the limits of this process: address space, CPU time, no
new files. A file that cannot be decoded ends with status 3 and the reason on standard error.
"""

from __future__ import annotations

import resource
import sys

from voxmlx.audio.decode import open_audio
from voxmlx.errors import AudioError

MAX_MEMORY_BYTES = 2 * 2**30
"""Address space: PyAV and NumPy take 0.6 GB of it, a decoder a few hundred MB at most."""
BAD_AUDIO = 3
"""Exit status for a file that cannot be decoded."""


def limit_process(cpu_s: int) -> None:
    """Give up the right to much memory, endless time and files."""
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    if sys.platform == "linux":  # macOS refuses this one
        limits[resource.RLIMIT_AS] = (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES)
    for name, values in limits.items():
        resource.setrlimit(name, values)


def main(cpu_s: int) -> int:
    """Decode standard input, which is a file, and return the exit status."""
    limit_process(cpu_s)
    try:
        with open_audio(sys.stdin.buffer) as reader:
            for samples in reader:
                sys.stdout.buffer.write(samples.tobytes())
        sys.stdout.buffer.flush()
    except AudioError as error:
        print(str(error).replace("<stdin>:", "file:"), file=sys.stderr)
        return BAD_AUDIO
    except MemoryError:
        print("the file needs too much memory to decode", file=sys.stderr)
        return BAD_AUDIO
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
