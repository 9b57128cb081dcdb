"""The reference says what the code says; the site has all pages, no dead link, and nothing from elsewhere."""

from __future__ import annotations

import html.parser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from documentation import bodies, building, chart, reference, staging, structs, tables
from documentation.building import ROOT
from drift_cli.main import COMMANDS
from drift_engine.api import requests

FOLDER = ROOT / "docs" / "reference"
TOP = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md"}


@pytest.mark.parametrize("name", reference.PAGES)
def test_reference_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text() == reference.PAGES[name](), "make it anew: python -m documentation"


def test_nothing_else_lies_in_the_reference() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(reference.PAGES)


@pytest.mark.parametrize("name", ["driftservice.md", "commands.md", "metrics.md", "options.md"])
def test_everything_has_a_meaning(name: str) -> None:
    assert re.findall(r"^\| (.*) \|  \|$", (FOLDER / name).read_text(), re.M) == []


def test_every_command_is_told_of() -> None:
    headings = re.findall(r"^## `drift (\w+)`$", (FOLDER / "commands.md").read_text(), re.M)
    assert headings == list(COMMANDS)


def test_fields_that_no_endpoint_reads_are_told_to_be_ignored() -> None:
    told = bodies.fields(requests.ChatRequest)
    ignored = set(re.findall(r"^\| `(\w+)` .* \| taken and ignored \|$", told, re.M))
    assert ignored > set(requests.Ignored.model_fields)
    assert not ignored & {"model", "messages", "temperature", "tools", "seed"}


class Inner(msgspec.Struct, frozen=True):
    depth: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    """How deep | it goes."""


class Outer(msgspec.Struct):
    name: str
    """Of it."""
    inner: Inner = Inner()
    share: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Of all."""


def test_options_within_options_are_named_by_their_path() -> None:
    assert structs.options(Outer).splitlines()[2:] == [
        "| `name` | text | required | Of it. |",
        "| `inner.depth` | integer, 1 to 64 | `2` | How deep \\| it goes. |",
        "| `share` | number, above 0 |  | Of all. |",
    ]


def test_values_of_a_chart_have_what_is_said_above_them() -> None:
    text = '# Not of a value.\n\n# Of the\n# group.\na:\n  # Of b.\n  b: ""\n  c: {}\nd: [1, 2]\n'
    assert list(chart.rows(text)) == [
        ("`a`", "", "Of the group."),
        ("`a.b`", '`""`', "Of b."),
        ("`a.c`", "`{}`", ""),
        ("`d`", "`[1, 2]`", ""),
    ]


def test_cells_stay_within_their_table() -> None:
    assert tables.table(["a"], [["b | c\nd"]]) == "| a |\n| --- |\n| b \\| c d |\n"


def test_a_site_has_what_its_pages_lead_to(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "page.md").write_text(
        "[other](deep/other.md#part) [web](https://example.com)\n```\n[no](no.md)\n```\n"
    )
    (tmp_path / "deep" / "other.md").write_text(
        '[back](../page.md) [data](data.json) <img src="picture.svg">'
    )
    (tmp_path / "deep" / "data.json").write_text("{}")
    (tmp_path / "deep" / "picture.svg").write_text("<svg/>")
    (tmp_path / "no.md").write_text("")
    found = staging.reached(tmp_path, [tmp_path / "page.md"])
    assert [str(file.relative_to(tmp_path)) for file in found] == [
        "deep/data.json",
        "deep/other.md",
        "deep/picture.svg",
        "page.md",
    ]


def test_a_site_has_nothing_from_outside_the_repository(tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("")
    root = tmp_path / "root"
    root.mkdir()
    (root / "page.md").write_text("[up](../secret.md)")
    assert staging.reached(root, [root / "page.md"]) == [root / "page.md"]


def test_the_navigation_leads_to_every_page() -> None:
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")} | TOP
    assert sorted(building.pages(building.configuration(ROOT)["nav"])) == sorted(pages)


class Outside(html.parser.HTMLParser):
    """What a page loads from elsewhere as soon as it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        target = attributes.get("src") or (tag == "link" and attributes.get("href")) or ""
        if "//" in target and attributes.get("rel") != "canonical":
            self.loaded.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's, built in another place."""
    root = tmp_path_factory.mktemp("repository")
    staging.stage(ROOT, building.sources(ROOT), root)
    shutil.copy(building.CONFIGURATION, root)
    return building.build(root)


def test_the_site_is_built_without_a_dead_link(site: Path) -> None:
    assert (site / "docs" / "reference" / "driftservice.html").is_file()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        outside = Outside()
        outside.feed(page.read_text())
        assert outside.loaded == [], page


def test_a_dead_link_fails_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    configuration = building.CONFIGURATION.read_text()
    (tmp_path / "mkdocs.yml").write_text(
        re.sub(r"^nav:.*", "nav:\n  - README.md\n", configuration, flags=re.M | re.S)
    )
    (tmp_path / "README.md").write_text("# A page\n\n[nowhere](nowhere.md)\n")
    with pytest.raises(subprocess.CalledProcessError):
        building.build(tmp_path)
    assert "README.md:3" in capfd.readouterr().err
