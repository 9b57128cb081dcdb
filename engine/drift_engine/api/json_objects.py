"""Follows a JSON object while it is being written, one character at a time."""

from __future__ import annotations


class ObjectScanner:
    """Knows where the object and the first object inside it end. It checks nesting, not the whole grammar."""

    def __init__(self) -> None:
        self.position = 0
        """Characters read."""
        self.complete = False
        self.broken = False
        """This is no JSON object: text before it, or markup within it."""
        self.second_object = False
        """The last character opened an object directly inside the outer one."""
        self.second_end = 0
        """Where the first inner object ended; 0 before."""
        self._depth = 0
        self._string = False
        self._escaped = False

    @property
    def going(self) -> bool:
        return not (self.complete or self.broken)

    def read(self, char: str) -> None:
        assert self.going
        self.position += 1
        self.second_object = False
        if self._string:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._string = False
        elif self._depth == 0:
            if char == "{":
                self._depth = 1
            elif not char.isspace():
                self._break()
        elif char == '"':
            self._string = True
        elif char in "{[":
            self._depth += 1
            self.second_object = char == "{" and self._depth == 2
        elif char in "}]":
            self._depth -= 1
            if self._depth == 1 and not self.second_end:
                self.second_end = self.position
            self.complete = self._depth == 0
        elif char in "<;":
            self._break()  # no JSON has these outside of strings: the model closed its markup too early

    def _break(self) -> None:
        self.broken = True
        self.position -= 1  # the character is not part of the object
