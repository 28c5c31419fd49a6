"""What was stored of each partition, and by which worker; totals are kept as it changes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass


@dataclass(slots=True)
class Amount:
    """So much of a write.

    Attributes
    ----------
    partitions, parts, rows : int
    size_bytes : int
        Bytes as stored.
    memory_bytes : int
        Bytes that the partitions took in memory.
    """

    partitions: int = 0
    parts: int = 0
    rows: int = 0
    size_bytes: int = 0
    memory_bytes: int = 0

    def add(self, other: Amount, sign: int) -> None:
        """Add another amount, or take it away."""
        self.partitions += sign * other.partitions
        self.parts += sign * other.parts
        self.rows += sign * other.rows
        self.size_bytes += sign * other.size_bytes
        self.memory_bytes += sign * other.memory_bytes


class Sizes:
    """What is stored of each partition; the last report of a partition counts."""

    def __init__(self) -> None:
        self._owners = array("l")
        """Number of the worker that stored it, from 1; 0 if it is not stored."""
        self._parts, self._rows, self._size, self._memory = (array("q") for _ in range(4))
        self._numbers: dict[str, int] = {}
        self._shares: list[Amount] = []
        self.total = Amount()

    def store(self, index: int, amount: Amount, worker: str) -> None:
        """A worker has stored a partition."""
        self.take_back(index)
        self._grow(index)
        number = self._numbers.setdefault(worker, len(self._numbers) + 1)
        if number > len(self._shares):
            self._shares.append(Amount())
        self._owners[index] = number
        self._parts[index], self._rows[index] = amount.parts, amount.rows
        self._size[index], self._memory[index] = amount.size_bytes, amount.memory_bytes
        self.total.add(amount, 1)
        self._shares[number - 1].add(amount, 1)

    def take_back(self, index: int) -> None:
        """What was stored of a partition no longer counts."""
        owner = self._owners[index] if index < len(self._owners) else 0
        if owner:
            self._owners[index] = 0
            amount = Amount(1, *(column[index] for column in self._counts))
            self.total.add(amount, -1)
            self._shares[owner - 1].add(amount, -1)

    def by_worker(self) -> dict[str, Amount]:
        """Return what each worker has stored."""
        return {worker: self._shares[number - 1] for worker, number in self._numbers.items()}

    def forget_partitions(self) -> None:
        """Keep the totals alone."""
        for column in self._columns:
            del column[:]

    @property
    def _counts(self) -> tuple[array[int], ...]:
        return self._parts, self._rows, self._size, self._memory

    @property
    def _columns(self) -> tuple[array[int], ...]:
        return self._owners, *self._counts

    def _grow(self, index: int) -> None:
        if index >= len(self._owners):
            # By more than is needed, for partitions mostly come one after another.
            missing = index + 1 - len(self._owners) + len(self._owners) // 2
            for column in self._columns:
                column.frombytes(bytes(missing * column.itemsize))
