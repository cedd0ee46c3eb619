"""How long work says how far it is, without knowing who listens."""

from typing import Final, Protocol


class Progress(Protocol):
    """Told of what there is to do as it is found, and of what is done; sizes in bytes."""

    def found(self, objects: int, size: int = 0) -> None:
        """More to do."""
        ...

    def done(self, objects: int, size: int = 0) -> None:
        """Some of it is done, with whatever result."""
        ...


class _Silent:
    def found(self, objects: int, size: int = 0) -> None:
        """Nobody listens."""

    def done(self, objects: int, size: int = 0) -> None:
        """Nobody listens."""


SILENT: Final[Progress] = _Silent()
