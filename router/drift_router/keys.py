"""Who may ask: API keys, known by their SHA-256 only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from drift_router import documents
from drift_router.documents import DocumentError, shown

MAX_KEYS = 1000
"""Each request is compared with all of them, about 0.1 us each."""

LEAST_PER_MINUTE, MOST_PER_MINUTE = 1e-3, 1e12
"""One in 16 hours; and no limit any more."""

MAX_KEY_BYTES = 512
"""Of what a client sends: ten times what is usual, and little to hash."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\x21-\x7e]{1,128}")
_SECRET = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_KEY_BYTES)


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One API key. `tenant`: keys with the same one share cached prefixes; None: with nobody."""

    name: str
    """In logs; never the key."""
    sha256: str
    """Of the key, 64 hexadecimal digits."""
    tenant: str | None = None
    trusted: bool = False
    """May set priorities and targets, and ask for explanations."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Prompt and answer together. None: no limit."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name: {shown(self.name)} is not 1 to 128 printable characters without spaces")
        if not _SHA256.fullmatch(self.sha256):
            # not shown: people put the key itself there
            raise ValueError("sha256: is not 64 hexadecimal digits in lower case")
        if self.tenant is not None and not _NAME.fullmatch(self.tenant):
            raise ValueError(
                f"tenant: {shown(self.tenant)} is not 1 to 128 printable characters without spaces"
            )
        for field in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, field)
            if value is not None and not LEAST_PER_MINUTE <= value <= MOST_PER_MINUTE:
                raise ValueError(
                    f"{field}: {value} is not between {LEAST_PER_MINUTE:g} and {MOST_PER_MINUTE:g}"
                )


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[Key]


class Keys:
    """The accepted keys, found in a time that does not tell which one or how much of it was right."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.listed = list(keys)
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.listed}

    def find(self, authorization: bytes) -> Key | None:
        """The key of an `authorization: Bearer KEY` header; None: nobody's."""
        scheme, _, given = authorization.partition(b" ")
        given = given.strip()
        if scheme.lower() != b"bearer" or not given or len(given) > MAX_KEY_BYTES:
            return None
        digest, found = hashlib.sha256(given).digest(), None
        for accepted, key in self._keys:
            if hmac.compare_digest(digest, accepted):
                found = key
        return found


def load(file: Path) -> Keys:
    """A YAML or JSON file `keys: [{name, sha256, ...}]`. Raises DocumentError."""
    return documents.load(file, _Document, made=lambda document: Keys(checked(document.keys)))


def load_folder(folder: Path) -> Keys:
    """A folder whose files' names are the clients' and that hold one key each; hidden files are none. Raises
    DocumentError, which shows no key.
    """
    try:
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise DocumentError(f"{folder}: {error.strerror or error}") from error
    if not files:
        raise DocumentError(f"{folder}: there is no key in it, so nobody could ask anything")
    if len(files) > MAX_KEYS:
        raise DocumentError(f"{folder}: {len(files)} keys are more than the maximum {MAX_KEYS}")
    owners: dict[str, Path] = {}
    for file in files:
        digest = _digest(file)
        if digest in owners:
            raise DocumentError(f"{file}: holds the same key as {owners[digest].name}")
        owners[digest] = file
    try:
        return Keys([Key(name=file.name, sha256=digest) for digest, file in owners.items()])
    except ValueError as error:
        raise DocumentError(f"{folder}: {error}") from error


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            key = stream.read(MAX_KEY_BYTES + 2).strip()  # with the end of its line
    except OSError as error:
        raise DocumentError(f"{file}: {error.strerror or error}") from error
    if not _SECRET.fullmatch(key):
        raise DocumentError(
            f"{file}: what it holds is not 1 to {MAX_KEY_BYTES} printable characters without spaces"
        )
    return hashlib.sha256(key).hexdigest()


def checked(keys: Sequence[Key]) -> Sequence[Key]:
    """Raises DocumentError where two entries could be confused, or where there are too many or none."""
    if not keys:
        raise DocumentError("keys: there is none, so nobody could ask anything")
    if len(keys) > MAX_KEYS:
        raise DocumentError(f"keys: {len(keys)} entries are more than the maximum {MAX_KEYS}")
    for field in ("name", "sha256"):
        first: dict[str, int] = {}
        for index, key in enumerate(keys):
            value = getattr(key, field)
            if value in first:
                raise DocumentError(f"keys[{index}].{field}: is also that of keys[{first[value]}]")
            first[value] = index
    return keys
