"""Which files the site is made of: those that its configuration names, and all in the repository that they link to.

The site has the same tree as the repository, so a link that works on the code host works on the site, and the other
way round.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

_FENCED = re.compile(r"^```.*?^```", re.M | re.S)
_LINK = re.compile(r"""\]\(<?([^)#\s>]+)|(?:src|srcset|href)="([^"#]+)""")


def links(text: str) -> list[str]:
    """Targets of a page's links and pictures that are files, as they are written."""
    found = [one or other for one, other in _LINK.findall(_FENCED.sub("", text))]
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def reached(root: Path, pages: Iterable[Path]) -> list[Path]:
    """The pages and all files below `root` that they lead to, by the way of other pages too, in order."""
    found: set[Path] = set()
    waiting = [page.resolve() for page in pages]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file() or not file.is_relative_to(root.resolve()):
            continue
        found.add(file)
        if file.suffix == ".md":
            waiting += [(file.parent / target).resolve() for target in links(file.read_text())]
    return sorted(found)


def stage(root: Path, pages: Iterable[Path], target: Path) -> None:
    """Copies of all that is reached, below `target`, which has nothing else in it afterwards."""
    shutil.rmtree(target, ignore_errors=True)
    for file in reached(root, pages):
        copy = target / file.relative_to(root.resolve())
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
