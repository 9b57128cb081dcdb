"""Reading YAML files: lines in front of problems, several documents, files that are no such thing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import documents
from drift_operator import manifests
from drift_operator.errors import ManifestError

GOOD = yaml.safe_dump(documents.minimal())


def lines_of(text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        manifests.read(text, "f.yaml")
    return list(caught.value.problems)


def test_problem_names_file_and_line() -> None:
    text = """\
apiVersion: drift.ai/v1alpha1
kind: DriftService
metadata: {name: demo}
spec:
  slo:
    tbt:
      targetMs: 0
  engine:
    env:
      - name: OK
      - name: "not ok"
"""
    assert lines_of(text) == [
        "f.yaml:4: spec.model: is required",
        "f.yaml:7: spec.slo.tbt.targetMs: 0 is below the minimum 1",
        "f.yaml:11: spec.engine.env[1].name: \"not ok\" is not letters, digits and '_', no digit first",
    ]


def test_documents_are_judged_one_by_one() -> None:
    assert [service.metadata.name for service in manifests.read(f"{GOOD}---\n{GOOD}")] == ["demo", "demo"]
    first = len(GOOD.splitlines())
    assert lines_of(f"{GOOD}---\nkind: Secret\n") == [
        f"f.yaml:{first + 2}: apiVersion: is required: drift.ai/v1alpha1",
        f'f.yaml:{first + 2}: kind: "Secret" is not DriftService',
    ]


def test_empty_documents_between_separators_are_skipped() -> None:
    assert len(manifests.read(f"---\n---\n{GOOD}---\n# nothing\n")) == 1


def test_key_that_appears_twice_is_refused() -> None:
    assert lines_of(GOOD + "  replicas: 1\n  replicas: 2\n")[0].endswith("spec.replicas: appears twice")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_file_without_a_document(text: str) -> None:
    assert lines_of(text) == ["f.yaml: no document in it"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", "f.yaml:1: not YAML: expected the node content, but found '<stream end>'"),
        ("a: b: c", "f.yaml:1: not YAML: mapping values are not allowed here"),
        ("a: \x00", "f.yaml: not YAML: unacceptable character #x0000: special characters are not allowed"),
        (
            "a: !!python/object:os.system {}",
            "f.yaml:1: not YAML: could not determine a constructor for the tag",
        ),
        ("a: *b", "f.yaml:1: not YAML: found undefined alias 'b'"),
    ],
)
def test_what_is_not_yaml(text: str, line: str) -> None:
    (found,) = lines_of(text)
    assert found.startswith(line)


@pytest.mark.parametrize("text", ["&a [*a]", "[" * 5000, "{a: " * 5000])
def test_nesting_without_end(text: str) -> None:
    (line,) = lines_of(text)
    assert line.startswith("f.yaml")


def test_alias_that_multiplies_is_cheap() -> None:
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9))
    assert lines_of(f"l0: &l0 [x]\n{levels}\n")[0].startswith("f.yaml:1: apiVersion")


def test_dates_stay_text() -> None:
    document = documents.minimal(model={"uri": "hf://a/b", "revision": "PLACE"})
    text = yaml.safe_dump(document).replace("PLACE", "2026-01-31")
    assert manifests.read(text)[0].spec.model.revision == "2026-01-31"


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    big, binary = tmp_path / "big.yaml", tmp_path / "binary.yaml"
    big.write_bytes(b"#" * (manifests.MAX_BYTES + 1))
    binary.write_bytes(b"a: \xff")
    for file, phrase in [
        (tmp_path / "absent.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (big, "larger than the maximum 1048576 bytes"),
        (binary, "not UTF-8 at byte 3"),
    ]:
        with pytest.raises(ManifestError) as caught:
            manifests.load(file)
        assert str(caught.value) == f"{file}: {phrase}"


def test_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert len(manifests.load(file)) == 1


@pytest.mark.parametrize("file", documents.EXAMPLES, ids=lambda file: file.name)
def test_examples_are_sound(file: Path) -> None:
    assert manifests.load(file)


def test_packaged_default_is_the_example() -> None:
    example = documents.REPOSITORY / "examples" / manifests.DEFAULT_NAME
    assert manifests.default_text() == example.read_text()
    assert manifests.default().spec.model.uri == "embedded://drift-tiny"
