"""The documentation as a site: stages its pages and has zensical build them. A dead link is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from documentation import staging

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "mkdocs.yml"
DEADLINE_S = 300.0
"""A build takes 5 s on two cores."""


class _Loader(yaml.SafeLoader):
    """Reads what zensical reads: Python's names in the configuration stay unknown."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def configuration(root: Path) -> dict[str, Any]:
    """What `mkdocs.yml` says."""
    found = yaml.load((root / CONFIGURATION.name).read_text(), _Loader)  # noqa: S506 - a safe loader
    assert isinstance(found, dict)
    return found


def pages(navigation: object) -> Iterator[str]:
    """Paths of the pages in a part of the navigation, in order."""
    match navigation:
        case str():
            yield navigation
        case list():
            for part in navigation:
                yield from pages(part)
        case dict():
            for part in navigation.values():
                yield from pages(part)


def sources(root: Path) -> list[Path]:
    """The files of a site that its configuration names."""
    found = configuration(root)
    return [root / name for name in [*pages(found["nav"]), *found.get("extra_css", ())]]


def build(root: Path = ROOT) -> Path:
    """The folder of the site of the pages below `root`. Raises CalledProcessError for pages that can't be built;
    zensical tells why."""
    found = configuration(root)
    source, site = root / str(found["docs_dir"]), root / str(found["site_dir"])
    staging.stage(root, sources(root), source)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    command += ["--config-file", str(root / CONFIGURATION.name)]
    subprocess.run(command, cwd=root, env={**os.environ, "NO_COLOR": "1"}, timeout=DEADLINE_S, check=True)
    return site
