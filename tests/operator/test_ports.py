"""Ports for processes that are about to start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from drift_operator.errors import LocalError
from drift_operator.local import ports


def test_ports_differ_and_can_be_listened_on() -> None:
    found = ports.free("127.0.0.1", 40)
    assert len(set(found)) == 40
    for port in found:
        ports.check("127.0.0.1", port)


def test_they_are_no_ports_of_outgoing_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "RANGE_FILE", tmp_path / "range")
    ports.RANGE_FILE.write_text("32768\t60999\n")
    assert all(20_000 <= port < 32768 for port in ports.free("127.0.0.1", 20))


@pytest.mark.parametrize("outgoing", ["1024 65535", "nonsense", ""])
def test_the_kernel_chooses_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outgoing: str
) -> None:
    monkeypatch.setattr(ports, "RANGE_FILE", tmp_path / "range")
    ports.RANGE_FILE.write_text(outgoing)
    assert len(set(ports.free("127.0.0.1", 5))) == 5


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(LocalError, match="can't be listened on"):
        ports.free("203.0.113.1")


def test_a_port_of_somebody_else_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "RANGE_FILE", tmp_path / "absent")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert taken not in ports.free("127.0.0.1", 5)
