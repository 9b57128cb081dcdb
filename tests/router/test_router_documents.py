"""Files and bodies of any content are read, or refused in one line."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router import documents
from drift_router.discovery import pushed
from drift_router.discovery.pushed import Update
from drift_router.documents import DocumentError
from drift_router.keys import Keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["epoch", "nodes", "name", "url", "weight", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | st.text(":[]{}&*!-?\n \"'%@`|>0a", max_size=40).map(str.encode))
def test_any_bytes(raw: bytes) -> None:
    with contextlib.suppress(DocumentError):
        documents.read(raw, Update)
    with contextlib.suppress(DocumentError):
        pushed.parse(raw)


@given(JSON)
def test_any_json(document: object) -> None:
    problem = ""
    try:
        pushed.parse(msgspec.json.encode(document))
    except DocumentError as error:
        problem = str(error)
    assert "\n" not in problem
    assert len(problem) < 300


@given(st.binary(max_size=100))
def test_any_authorization(header: bytes) -> None:
    assert Keys([]).find(header) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"nodes: &a [*a]",
        b"nodes: [2001-02-30]",
        b"nodes: [2001-02-03]",
        b"nodes: [!!binary aGVsbG8=]",
        b"!!python/object:os.system {}",
        b"? [a]\n: b",
        b"epoch: 1\nnodes: []\n---\nepoch: 2\nnodes: []",
        b"epoch: 1" + b"0" * 5000,
        b"[" * 5000,
        b"nodes: [{name: a, url: http://h, weight: 1e400}]",
        b'{"epoch": ' + b"9" * 5000 + b', "nodes": []}',
    ],
)
def test_traps_of_yaml(raw: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        documents.read(raw, Update)
    assert len(str(caught.value)) < 300
