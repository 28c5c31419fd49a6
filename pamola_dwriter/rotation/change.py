"""What a caller wants of the keys of something, and the wrapped keys that follow from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pamola_dwriter import keys
from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.errors import (
    EncryptionKeyError,
    InvalidKeyError,
    InvalidWriteError,
    MissingKeyError,
)
from pamola_dwriter.spec import WrappedKey

Wrapped = tuple[WrappedKey, ...]


@dataclass(frozen=True, slots=True)
class DatasetKey:
    """A dataset key, and what its wrapped forms are bound to."""

    value: bytes = field(repr=False)
    context: bytes

    def opened_by(self, provider: KeyProvider, wrapped: Iterable[WrappedKey]) -> bool:
        """Return whether a provider opens one of `wrapped` to this key."""
        try:
            return keys.unwrap_any((provider,), tuple(wrapped), self.context) == self.value
        except EncryptionKeyError:  # one that cannot be asked says so when it has to wrap
            return False

    def wrap(self, provider: KeyProvider) -> WrappedKey:
        """Return this key wrapped by a provider."""
        return provider.wrap(self.value, self.context)


@dataclass(frozen=True, slots=True)
class Change:
    """Keys that open something now, keys that are to open it, and ids of those that no longer are.

    Where one in `to` opens it, and none of those `given` does, the change was made before: it was
    interrupted elsewhere, and goes on.
    """

    given: tuple[KeyProvider, ...]
    to: tuple[KeyProvider, ...]
    revoke: frozenset[str]

    @classmethod
    def of(cls, encryption_key: Any, to: Any, revoke: str | Collection[str]) -> Self:
        """Check what :func:`rotate_keys` was given; errors as there."""
        ids = frozenset([revoke] if isinstance(revoke, str) else revoke)
        if to is None and not ids:
            raise InvalidWriteError("a rotation changes nothing without `to` and `revoke`")
        given = () if encryption_key is None else keys.resolve(encryption_key)
        try:
            return cls(given, () if to is None else keys.resolve(to), ids)
        except InvalidKeyError as error:
            error.say_first("to")
            raise

    def open(self, root: str, wrapped: Wrapped, context: bytes) -> DatasetKey:
        """Return the key that `wrapped` holds.

        Raises
        ------
        MissingKeyError, WrongKeyError
            `encryption_key` was not given or, like `to`, does not open it.
        """
        if not self.given:
            raise MissingKeyError(f"{root} is encrypted; give its encryption_key")
        try:
            return DatasetKey(keys.unwrap_any(self.given, wrapped, context), context)
        except EncryptionKeyError as error:
            failure = error
        try:
            return DatasetKey(keys.unwrap_any(self.to, wrapped, context), context)
        except EncryptionKeyError:
            raise failure from None

    def was_made(self, wrapped: Wrapped, key: DatasetKey) -> bool:
        """Return whether only a key in `to` opens `wrapped`."""
        return not any(key.opened_by(provider, wrapped) for provider in self.given)

    def revoked(self, wrapped: Wrapped, key: DatasetKey) -> Wrapped:
        """Return those of `wrapped` that go."""
        named = tuple(each for each in wrapped if each.key_id in self.revoke)
        if not named or not self.was_made(wrapped, key):
            return named
        # Passphrases have one id: the new one must not go with the old one.
        return tuple(
            each for each in named if not any(key.opened_by(one, [each]) for one in self.to)
        )

    def add(self, stays: Wrapped, key: DatasetKey) -> Wrapped:
        """Return `stays` with a wrapped form for each in `to` that opens none of them."""
        wrapped = stays
        for provider in self.to:
            if not key.opened_by(provider, wrapped):
                made = key.wrap(provider)
                if not _recipient_among(provider, made, wrapped, key):
                    wrapped += (made,)
        return wrapped

    def wrap_again(
        self, stays: Wrapped, old: DatasetKey, fresh: DatasetKey
    ) -> tuple[WrappedKey | None, ...]:
        """Return a fresh key wrapped for those that open `stays`, None for one not given."""
        providers = (*self.given, *self.to)
        return tuple(_wrap_as(each, providers, old, fresh) for each in stays)

    def check(self, root: str, wrapped: Wrapped, key: DatasetKey) -> None:
        """Raise InvalidKeyError unless a key that was given opens `wrapped`, and they are few."""
        if len(wrapped) > keys.MAX_WRAPPED:
            raise InvalidKeyError(
                f"at most {keys.MAX_WRAPPED} keys open a dataset or file, and {len(wrapped)} "
                f"would open {root}; revoke some"
            )
        if not any(key.opened_by(provider, wrapped) for provider in (*self.to, *self.given)):
            raise InvalidKeyError(
                f"none of the keys that you gave would open {root} afterwards; name in `to` one "
                "that does"
            )

    def check_known(self, root: str, wrapped: Iterable[WrappedKey]) -> None:
        """Raise InvalidKeyError if an id to revoke is of none of these."""
        ids = {each.key_id for each in wrapped}
        if unknown := self.revoke - ids:
            raise InvalidKeyError(
                f"no key of {root} has the id {', '.join(sorted(unknown))}; those it has are "
                f"{', '.join(sorted(ids))}"
            )


def _recipient_among(
    provider: KeyProvider, made: WrappedKey, wrapped: Iterable[WrappedKey], key: DatasetKey
) -> bool:
    """Return whether `made` is for a public key that one of `wrapped` is for already.

    A public key opens nothing, so that it can only be told by its id.
    """
    return any(_same_id(each, made) for each in wrapped) and not key.opened_by(provider, [made])


def _wrap_as(
    one: WrappedKey, providers: Sequence[KeyProvider], old: DatasetKey, fresh: DatasetKey
) -> WrappedKey | None:
    for provider in providers:
        if old.opened_by(provider, [one]):
            return fresh.wrap(provider)
    for provider in providers:
        made = fresh.wrap(provider)
        if _recipient_among(provider, made, [one], fresh):
            return made
    return None


def _same_id(one: WrappedKey, other: WrappedKey) -> bool:
    return (one.method, one.key_id) == (other.method, other.key_id)
