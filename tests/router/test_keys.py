"""API keys: who is let in, and what a mistake in the file is answered with."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from drift_router import keys
from drift_router.documents import DocumentError
from drift_router.keys import Key, Keys
from drift_router.reloading import Reloading


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


ALICE = Key("alice", sha256("sk-alice"), tenant="red", trusted=True, tokens_per_minute=1000)
BOB = Key("bob", sha256("sk-bob"))
BOTH = Keys([ALICE, BOB])


def test_a_key_is_found_by_its_secret() -> None:
    assert BOTH.find(b"Bearer sk-alice") == ALICE
    assert BOTH.find(b"bearer   sk-bob ") == BOB


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"sk-alice",
        b"Basic sk-alice",
        b"Bearer sk-alic",
        b"Bearer sk-alice sk-bob",
        b"Bearer \xff\xfe",
        b"Bearer " + sha256("sk-alice").encode(),
        b"Bearer " + b"x" * 100_000,
    ],
)
def test_nothing_else_is(header: bytes) -> None:
    assert BOTH.find(header) is None


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"keys:\n- {{name: alice, sha256: {sha256('sk-alice')}, tenant: red, trusted: true,"
        " tokens_per_minute: 1000}\n"
        f"- {{name: bob, sha256: {sha256('sk-bob')}}}\n"
    )
    loaded = keys.load(file)
    assert len(loaded) == 2
    assert loaded.find(b"Bearer sk-alice") == ALICE
    assert loaded.find(b"Bearer sk-bob") == BOB


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keys: []", "there is none"),
        (f"keys: [{{sha256: '{DIGEST}'}}]", "keys[0]: Object missing required field name"),
        (f"keys: [{{name: a b, sha256: '{DIGEST}'}}]", 'keys[0]: name: "a b" is not'),
        (
            "keys: [{name: a, sha256: sk-secret}]",
            "keys[0]: sha256: is not 64 hexadecimal digits in lower case",
        ),
        (
            f"keys: [{{name: a, sha256: '{DIGEST}', requests_per_minute: 0}}]",
            "requests_per_minute: 0.0 is not between",
        ),
        (
            f"keys: [{{name: a, sha256: '{DIGEST}', tokens_per_minute: .inf}}]",
            "tokens_per_minute: inf is not between",
        ),
        (
            f"keys: [{{name: a, sha256: '{DIGEST}', trusted: maybe}}]",
            'keys[0].trusted: "maybe": Expected bool, got str',
        ),
        (
            f"keys: [{{name: a, sha256: '{DIGEST}'}}, {{name: b, sha256: '{DIGEST}'}}]",
            "keys[1].sha256: is also that",
        ),
        (
            f"keys: [{{name: a, sha256: '{DIGEST}'}}, {{name: a, sha256: '{'1' * 64}'}}]",
            "keys[1].name: is also that",
        ),
    ],
)
def test_a_mistake_is_named_without_showing_a_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(DocumentError) as caught:
        keys.load(file)
    assert message in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def mounted(folder: Path, keys_by_name: dict[str, str]) -> None:
    """As Kubernetes mounts a Secret, and changes it: all at once, by one symbolic link."""
    version = f"..{len(list(folder.iterdir()))}"
    (folder / version).mkdir()
    for name, key in keys_by_name.items():
        (folder / version / name).write_text(key)
    (folder / "..new").symlink_to(version)
    (folder / "..new").rename(folder / "..data")
    for name in keys_by_name:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for file in folder.iterdir():
        if not file.name.startswith(".") and file.name not in keys_by_name:
            file.unlink()


def test_a_folder_holds_one_key_a_file_under_its_clients_name(tmp_path: Path) -> None:
    mounted(tmp_path, {"alice": "sk-alice\n", "bob": "sk-bob"})
    (tmp_path / ".hidden").write_text("sk-hidden")
    loaded = keys.load_folder(tmp_path)
    assert loaded.names == {"alice", "bob"}
    assert loaded.find(b"Bearer sk-alice") == Key("alice", sha256("sk-alice"))
    assert loaded.find(b"Bearer sk-hidden") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no key in it"),
        ({"a": ""}, "a: what it holds is not 1 to 512 printable characters"),
        ({"a": "sk-secret sk-secret"}, "a: what it holds is not"),
        ({"a": "sk-secret" * 100}, "a: what it holds is not"),
        ({"a": "sk-secr\u00e9t"}, "a: what it holds is not"),
        ({"a": "sk-secret", "b": "sk-secret"}, "b: holds the same key as a"),
        ({"a b": "sk-secret"}, 'name: "a b" is not'),
        (
            {str(number): f"sk-secret-{number}" for number in range(1001)},
            "1001 keys are more than the maximum",
        ),
    ],
)
def test_a_mistake_in_a_folder_is_named_without_showing_a_key(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, key in files.items():
        (tmp_path / name).write_text(key)
    with pytest.raises(DocumentError) as caught:
        keys.load_folder(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "secr" not in str(caught.value).replace(str(tmp_path), "")


def test_a_mounted_secret_is_read_again_when_it_changes(tmp_path: Path) -> None:
    mounted(tmp_path, {"alice": "sk-alice", "bob": "sk-bob"})

    async def changes() -> list[set[str]]:
        found: list[set[str]] = []
        watched = Reloading(tmp_path, keys.load_folder)
        await watched.start(lambda loaded: found.append(loaded.names))
        assert watched.poll() is None
        mounted(tmp_path, {"alice": "sk-alice", "carol": "sk-carol"})
        loaded = watched.poll()
        assert loaded is not None
        found.append(loaded.names)
        mounted(tmp_path, {"alice": "sk-rolled", "carol": "sk-carol"})
        loaded = watched.poll()
        assert loaded is not None
        assert loaded.find(b"Bearer sk-alice") is None
        mounted(tmp_path, {"alice": ""})
        assert watched.poll() is None
        assert watched.problem.endswith(
            "alice: what it holds is not 1 to 512 printable characters without spaces"
        )
        await watched.close()
        return found

    assert asyncio.run(changes()) == [{"alice", "bob"}, {"alice", "carol"}]


def test_a_file_that_changes_in_place_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "alice").write_text("sk-alice")

    async def changes() -> None:
        watched = Reloading(tmp_path, keys.load_folder)
        await watched.start(lambda loaded: None)
        (tmp_path / "alice").write_text("sk-alice-2")
        loaded = watched.poll()
        assert loaded is not None
        assert loaded.find(b"Bearer sk-alice-2") is not None
        await watched.close()

    asyncio.run(changes())
