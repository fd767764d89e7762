"""Brings shards onto the device as they appear in a folder, while a model is being trained."""

from __future__ import annotations

import threading
import time
import zlib
from pathlib import Path

from augment import Bank
from group import Group


class Feeder(threading.Thread):
    """Moves new shards into the bank and names them in ORDER, where the planners find them.

    Recordings go to every process of a group, a shard of made speech to one of them; of what CPUs
    made only one shard of `thin` is taken, where memory is short.
    """

    def __init__(self, folder: Path, bank: Bank, order: Path, group: Group, thin: int = 1) -> None:
        super().__init__(daemon=True)
        self.folder, self.bank, self.known = folder, bank, set()
        self.rank, self.size, self.thin = group.rank, group.size, thin
        self.order = order
        self.order.write_text("")
        self.stop = False

    def mine(self, name: str) -> bool:
        """Whether this process of the group takes a shard."""
        one_of = self.size * (1 if name.startswith("k") else self.thin)
        return zlib.crc32(name.encode()) % one_of == self.rank

    def scan(self) -> None:
        """Take what has appeared."""
        for path in sorted(self.folder.glob("*.json"), key=lambda p: p.stat().st_mtime):
            everybody = path.stem.startswith("real_")
            if path.stem in self.known or not (everybody or self.mine(path.stem)):
                continue
            try:
                self.bank.add(path.stem)
            except MemoryError as error:
                print(error, flush=True)
                self.stop = True
                return
            self.known.add(path.stem)
            with open(self.order, "a") as file:
                print(path.stem, file=file)

    def run(self) -> None:
        """Scan every three seconds."""
        while not self.stop:
            self.scan()
            time.sleep(3)
