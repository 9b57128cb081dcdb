"""Label selectors, as Kubernetes writes them in URLs: `a=b,c!=d,e in (f,g),h notin (i),j,!k`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_CHARACTERS = 4096
"""Of a whole selector. An HPA's has about forty."""

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_KEY = re.compile(rf"(?:{_PREFIX}/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_TOKEN = re.compile(r"\s*(?:(?P<mark>==|!=|[=!,()])|(?P<word>[^\s=!,()]+))")


class SelectorError(ValueError):
    """A selector that can't be read: what was found, and where."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Of one label. `values` None: of its presence alone."""

    key: str
    values: frozenset[str] | None
    wanted: bool = True

    def holds(self, labels: Mapping[str, str]) -> bool:
        """A label that isn't there is not one of any values, as Kubernetes sees it."""
        present = self.key in labels
        return (present and (self.values is None or labels[self.key] in self.values)) is self.wanted


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements together; none selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)


def parse(text: str) -> Selector:
    """Raises SelectorError."""
    if len(text) > MAX_CHARACTERS:
        raise SelectorError(
            f"a label selector has {len(text)} characters, more than the maximum {MAX_CHARACTERS}"
        )
    if not text.strip():
        return Selector()
    tokens = _Tokens(text)
    found = [_requirement(tokens)]
    while tokens.took(","):
        found.append(_requirement(tokens))
    if tokens.next is not None:
        raise tokens.unexpected("',' or the end")
    return Selector(tuple(found))


class _Tokens:
    """Marks and words from left to right; `next` is None at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._all = list(_TOKEN.finditer(text))
        self._place = 0

    @property
    def next(self) -> str | None:
        if self._place == len(self._all):
            return None
        match = self._all[self._place]
        return match["mark"] or match["word"]

    def took(self, mark: str) -> bool:
        """True, and it is gone, where the next one is `mark`."""
        if self.next != mark:
            return False
        self._place += 1
        return True

    def word(self, what: str, form: re.Pattern[str]) -> str:
        found = self.next
        if found is None or self._all[self._place]["word"] is None:
            raise self.unexpected(what)
        if form.fullmatch(found) is None:
            raise SelectorError(f"label selector {self._text!r}: {found!r} can't be {what}")
        self._place += 1
        return found

    def unexpected(self, wanted: str) -> SelectorError:
        found = "it ends" if self.next is None else f"{self.next!r} stands"
        return SelectorError(f"label selector {self._text!r}: {found} where {wanted} is expected")


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.took("!"):
        return Requirement(tokens.word("a label's key", _KEY), None, wanted=False)
    key = tokens.word("a label's key", _KEY)
    if tokens.took("=") or tokens.took("=="):
        return Requirement(key, frozenset({_value(tokens)}))
    if tokens.took("!="):
        return Requirement(key, frozenset({_value(tokens)}), wanted=False)
    if tokens.took("in"):
        return Requirement(key, _values(tokens))
    if tokens.took("notin"):
        return Requirement(key, _values(tokens), wanted=False)
    return Requirement(key, None)


def _values(tokens: _Tokens) -> frozenset[str]:
    if not tokens.took("("):
        raise tokens.unexpected("'('")
    found = {_value(tokens)}
    while tokens.took(","):
        found.add(_value(tokens))
    if not tokens.took(")"):
        raise tokens.unexpected("',' or ')'")
    return frozenset(found)


def _value(tokens: _Tokens) -> str:
    """May be empty."""
    if tokens.next in (None, ",", ")"):
        return ""
    return tokens.word("a label's value", _VALUE)
