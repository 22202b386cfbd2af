"""What the stand-in refuses."""


class StandinError(Exception):
    """A program that the stand-in cannot run or whose data is missing."""


class CompilerError(StandinError):
    """A call that MP-SPDZ's compiler would reject (or that the stand-in does not provide)."""


class MemoryAccessError(StandinError):
    """An access outside allocated memory, or a read of memory that was never written."""


class HazardError(StandinError):
    """Two accesses to the same memory whose order MP-SPDZ does not guarantee."""
