"""The block names' definition: a change here breaks every router and peer of an older version."""

from __future__ import annotations

import struct

from drift_engine import hashing


def test_fixed_vector() -> None:
    root = hashing.root_hash("tenant-a")
    first = hashing.block_hash(root, struct.pack("<4i", 1, 2, 3, 4))
    second = hashing.block_hash(first, struct.pack("<4i", 5, 6, 7, 128_000))

    assert hashing.root_hash("") == 3244421341483603138
    assert (root, first, second) == (7159698576361518977, 15614578402406181510, 12477035546364813742)


def test_a_name_covers_salt_position_and_tokens() -> None:
    block = struct.pack("<4i", 1, 2, 3, 4)
    root = hashing.root_hash("a")

    names = {
        hashing.block_hash(root, block),
        hashing.block_hash(hashing.root_hash("b"), block),
        hashing.block_hash(hashing.block_hash(root, block), block),
        hashing.block_hash(root, struct.pack("<4i", 1, 2, 3, 5)),
    }

    assert len(names) == 4
