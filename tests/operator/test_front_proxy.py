"""Whom the API server's front proxy asks for, and who merely says that he is it."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from drift_operator.doors import front_proxy
from drift_operator.doors.front_proxy import FrontProxyError, User

DATA = {
    "requestheader-client-ca-file": "PEM",
    "requestheader-allowed-names": '["proxy"]',
    "requestheader-username-headers": '["X-Remote-User","X-Other-User"]',
    "requestheader-uid-headers": '["X-Remote-Uid"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}
PROXY = frozenset({"proxy"})
HEADERS = CIMultiDict(
    [
        ("x-remote-user", "anna"),
        ("X-Remote-Uid", "7"),
        ("X-Remote-Group", "staff"),
        ("X-Remote-Group", "system:authenticated"),
        ("X-Remote-Extra-Scopes", "read"),
        ("X-Remote-Extra-Scopes", "write"),
        ("X-Remote-Extra-Acme.com%2Fproject", "x"),
    ]
)


def test_the_proxy_s_headers_name_the_user() -> None:
    assert front_proxy.parse(DATA).user(PROXY, HEADERS) == User(
        "anna",
        uid="7",
        groups=("staff", "system:authenticated"),
        extra={"scopes": ("read", "write"), "acme.com/project": ("x",)},
    )


def test_the_first_header_that_is_there_counts() -> None:
    found = front_proxy.parse(DATA).user(PROXY, CIMultiDict({"X-Other-User": "bert"}))
    assert found is not None
    assert found.name == "bert"


@pytest.mark.parametrize(
    "names", [None, frozenset({"admin"}), frozenset()], ids=["none", "another", "nameless"]
)
def test_headers_are_worth_nothing_without_the_proxy_s_certificate(names: frozenset[str] | None) -> None:
    assert front_proxy.parse(DATA).user(names, HEADERS) is None


def test_without_names_any_certificate_of_the_authority_will_do() -> None:
    proxy = front_proxy.parse(DATA | {"requestheader-allowed-names": "[]"})
    assert proxy.user(frozenset({"whoever"}), HEADERS) is not None


def test_without_an_authority_there_is_no_proxy() -> None:
    proxy = front_proxy.parse({key: text for key, text in DATA.items() if "client-ca" not in key})
    assert proxy.user(PROXY, HEADERS) is None


def test_a_proxy_that_names_nobody_asks_for_nobody() -> None:
    assert front_proxy.parse(DATA).user(PROXY, CIMultiDict({"X-Remote-User": ""})) is None


def test_users_without_groups_are_authenticated_all_the_same() -> None:
    found = front_proxy.parse(DATA).user(PROXY, CIMultiDict({"X-Remote-User": "system:aggregator"}))
    assert found is not None
    assert found.groups == ("system:authenticated",)


def test_nobody_in_particular_is_not_authenticated() -> None:
    headers = CIMultiDict({"X-Remote-User": "system:anonymous", "X-Remote-Group": "system:unauthenticated"})
    found = front_proxy.parse(DATA).user(PROXY, headers)
    assert found is not None
    assert found.groups == ("system:unauthenticated",)


def test_a_config_map_that_cant_be_read_is_refused_by_its_key() -> None:
    with pytest.raises(FrontProxyError, match="requestheader-allowed-names"):
        front_proxy.parse(DATA | {"requestheader-allowed-names": "proxy"})
