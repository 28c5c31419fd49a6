"""What other packages bring, found by the entry points they declare.

It is imported when it is first asked for, in each process that needs it: so the package is
installed on the client and on every worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pamola_dwriter.errors import DataWriteError


@dataclass(frozen=True, slots=True)
class ExtensionPoint:
    """One kind of thing that packages may bring.

    Attributes
    ----------
    group : str
        Of the entry points.
    noun : str
        What messages call such a thing.
    error : type of DataWriteError
        Raised where one cannot be had.
    """

    group: str
    noun: str
    error: type[DataWriteError]

    def names(self) -> list[str]:
        """Return the names that installed packages offer, sorted."""
        return sorted(entry_points(group=self.group).names)

    def load(self, name: str) -> Any:
        """Import what a package offers under `name`; None if no installed package does.

        Raises
        ------
        DataWriteError
            The `error` of this point: several packages offer it, or the one that does is broken.
        """
        found = list(entry_points(group=self.group, name=name))
        if not found:
            return None
        packages = sorted({_package(entry) for entry in found})
        if len(packages) > 1:
            raise self.error(
                f"{self.noun} {name!r} is offered by {' and '.join(packages)}; uninstall all but "
                "one"
            )
        try:
            return found[0].load()
        except Exception as error:  # whatever somebody else's module raises
            raise self.broken(name, error) from error

    def broken(self, name: str, error: Exception) -> DataWriteError:
        """Return the error that says which package brings `name` and what is wrong with it."""
        packages = sorted({_package(one) for one in entry_points(group=self.group, name=name)})
        return self.error(
            f"{self.noun} {name!r} of package {' and '.join(packages)} is broken "
            f"({type(error).__name__}: {error}); mend or uninstall the package"
        )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value
