"""Who asks, where the cluster's API server asks for somebody: the front proxy, as its ConfigMap describes it.

An aggregated API gets its users' names in headers. They are worth something only on a connection whose client has
shown a certificate of the front proxy: the TLS layer checks its authority, here its name is checked.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from multidict import MultiMapping

CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"

AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = "system:anonymous"


class FrontProxyError(ValueError):
    """The ConfigMap can't be read: which key, and why."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """The part of a SubjectAccessReview's spec that says who asks."""
        return {
            "user": self.name,
            "uid": self.uid,
            "groups": list(self.groups),
            "extra": {key: list(values) for key, values in self.extra.items()},
        }


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How the API server's proxy shows itself. Without authorities there is none, and headers are just headers."""

    authorities: str = ""
    """PEM."""
    names: frozenset[str] = frozenset()
    """Common names of its certificates; empty: any that an authority has signed."""
    user_headers: tuple[str, ...] = ()
    uid_headers: tuple[str, ...] = ()
    group_headers: tuple[str, ...] = ()
    extra_prefixes: tuple[str, ...] = ()

    def user(self, common_names: frozenset[str] | None, headers: MultiMapping[str]) -> User | None:
        """Whom it asks for. `common_names`: of the client's certificate, once an authority's signature was found on
        it; None: it showed none. None: this is not the front proxy, or it names nobody.
        """
        if common_names is None or not self.authorities:
            return None
        if self.names and not self.names & common_names:
            return None
        name = _first(headers, self.user_headers)
        if not name:
            return None
        groups = tuple(group for header in self.group_headers for group in headers.getall(header, ()))
        return User(
            name,
            uid=_first(headers, self.uid_headers),
            groups=authenticated(name, groups),
            extra=self._extra(headers),
        )

    def _extra(self, headers: MultiMapping[str]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for header, value in headers.items():
            for prefix in self.extra_prefixes:
                if header.lower().startswith(prefix.lower()):
                    key = urllib.parse.unquote(header[len(prefix) :].lower())
                    found[key] = (*found.get(key, ()), value)
        return found


def parse(data: Mapping[str, str]) -> FrontProxy:
    """Of the ConfigMap's data. Raises FrontProxyError."""

    def listed(key: str) -> tuple[str, ...]:
        text = data.get(f"requestheader-{key}", "[]")
        try:
            return tuple(msgspec.json.decode(text, type=list[str]))
        except msgspec.DecodeError as error:
            raise FrontProxyError(f"requestheader-{key} is no list of texts: {text!r}") from error

    return FrontProxy(
        authorities=data.get("requestheader-client-ca-file", ""),
        names=frozenset(listed("allowed-names")),
        user_headers=listed("username-headers"),
        uid_headers=listed("uid-headers"),
        group_headers=listed("group-headers"),
        extra_prefixes=listed("extra-headers-prefix"),
    )


def authenticated(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """With the group of everybody whose name was proved: the API server's own requests come without any."""
    if name == ANONYMOUS or AUTHENTICATED in groups or UNAUTHENTICATED in groups:
        return groups
    return (*groups, AUTHENTICATED)


def _first(headers: MultiMapping[str], names: tuple[str, ...]) -> str:
    return next((headers[name] for name in names if headers.get(name)), "")
