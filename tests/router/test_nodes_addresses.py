"""Lists of nodes as people write them: what is read, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

import documents
from drift_router.documents import DocumentError
from drift_router.nodes import addresses
from drift_router.nodes.addresses import Address

YAML = """
nodes:
  - name: a
    url: http://10.0.0.1:8000
    control_url: http://10.0.0.1:8001
  - name: b
    url: http://[::1]:8000
    weight: 0.5
    draining: true
"""


def load(tmp_path: Path, text: str) -> tuple[Address, ...]:
    file = tmp_path / "nodes.yaml"
    file.write_text(text)
    return addresses.load(file)


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    expected = (
        Address("a", "http://10.0.0.1:8000", "http://10.0.0.1:8001"),
        Address("b", "http://[::1]:8000", weight=0.5, draining=True),
    )
    assert load(tmp_path, YAML) == expected
    json = '{"nodes": [{"name": "a", "url": "http://h"}]}'
    assert load(tmp_path, json) == (Address("a", "http://h"),)


def test_the_example_before_vllm_can_be_used() -> None:
    found = addresses.load(documents.REPOSITORY / "examples" / "router" / "vllm-nodes.yaml")
    assert [node.replay_url for node in found] == ["tcp://10.0.0.1:5558", "tcp://10.0.0.2:5558"]


def test_there_may_be_no_nodes(tmp_path: Path) -> None:
    assert load(tmp_path, "nodes: []") == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("url: http://h", "nodes[0]: Object missing required field name"),
        ("name: a", "nodes[0]: Object missing required field url"),
        ("name: a, url: http://h, wieght: 1", "nodes[0]: Object contains unknown field wieght"),
        ("name: a, url: http://h, weight: 2", "nodes[0]: weight: 2.0 is not between 0 and 1"),
        ("name: a, url: http://h, weight: .nan", "nodes[0]: weight: nan is not between 0 and 1"),
        ("name: a, url: http://h, weight: much", 'nodes[0].weight: "much": Expected float, got str'),
        ("name: a, url: 'h:8000'", 'nodes[0]: url: "h:8000" is not of the form http://HOST:PORT'),
        ("name: a, url: http://h/v1", 'nodes[0]: url: "http://h/v1" is not of the form http://HOST:PORT'),
        ("name: a, url: http://me:pw@h", "is not of the form http://HOST:PORT"),
        ("name: a, url: http://h:99999", "the port is not between 1 and 65535"),
        ('name: a, url: "http://h\\r\\nx: y"', "is not of the form http://HOST:PORT"),
        ("name: a, url: http://h, control_url: ftp://h", 'control_url: "ftp://h" is not of the form'),
        ("name: a, url: http://h, events_url: tcp://h:1", "nodes[0]: replay_url: is missing"),
        ("name: a, url: http://h, replay_url: tcp://h:1", "nodes[0]: events_url: is missing"),
        (
            "name: a, url: http://h, events_url: 'tcp://*:1', replay_url: tcp://h:2",
            'events_url: "tcp://*:1" is not of the form tcp://HOST:PORT',
        ),
        (
            "name: a, url: http://h, events_url: tcp://h:1, replay_url: tcp://h:70000",
            "the port is not between 1 and 65535",
        ),
        (
            "name: a, url: http://h, control_url: http://c, events_url: tcp://h:1, replay_url: tcp://h:2",
            "not beside control_url",
        ),
        ("name: '', url: http://h", 'nodes[0]: name: "" is not 1 to 253'),
        ('name: "a\\"}", url: http://h', "nodes[0]: name:"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, fields: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, f"nodes: [{{{fields}}}]")
    assert message in str(caught.value)
    assert str(tmp_path / "nodes.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nodes: [{name: a, url: http://h}, {name: a, url: http://i}]",
            'nodes[1].name: "a" is also that of nodes[0]',
        ),
        ("nodes: [{name: a, url: http://h}, {name: b, url: http://h}]", "nodes[1].url:"),
        ("nodes: 3", "nodes: 3: Expected array, got int"),
        ("nodes: [\n  {name: a\n", "line 3: not YAML"),
        ("", "document: null: Expected object, got null"),
        ("nodes:\n  - name: '\x01'", "not YAML"),
    ],
)
def test_so_is_one_of_the_whole_list(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        addresses.load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"nodes: [\xff]")
    with pytest.raises(DocumentError, match="not UTF-8 at byte 8"):
        addresses.load(tmp_path / "bytes.yaml")


def test_a_list_has_a_limit() -> None:
    many = [Address(f"n{i}", f"http://h{i}") for i in range(addresses.MAX_NODES + 1)]
    with pytest.raises(DocumentError, match="4097 entries are more than the maximum 4096"):
        addresses.checked(many)
