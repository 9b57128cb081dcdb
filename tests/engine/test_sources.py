"""Resolving a model's URI: folders, the embedded model, and the hub against a local stand-in."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

import drift_tiny
import fake_hub
from drift_engine import sources
from drift_engine.errors import ModelError

WEIGHTS_BYTES = 300_000


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_hub.FakeHub]:
    folder = tmp_path / "repository"
    (folder / "original").mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(os.urandom(WEIGHTS_BYTES))
    for unwanted in ("README.md", "pytorch_model.bin", "consolidated.safetensors", "original/params.json"):
        (folder / unwanted).write_text("not ours")
    with fake_hub.serve({"owner/name": folder}) as hub:
        for module in (constants, huggingface_hub.file_download, huggingface_hub.hf_api):
            if hasattr(module, "ENDPOINT"):
                monkeypatch.setattr(module, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub


def _message(uri: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        sources.resolve(uri, revision)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_by_path_and_by_file_uri(tmp_path: Path) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    assert sources.resolve(str(folder)) == folder
    assert sources.resolve(f"file://{tmp_path}/my%20model") == folder


def test_the_embedded_model() -> None:
    assert sources.resolve("embedded://drift-tiny") == drift_tiny.checkpoint_path().resolve()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("no/such/folder", "no/such/folder does not exist; give a folder, file:///folder, embedded://"),
        ("file:///no/such/folder", "does not exist"),
        ("file://elsewhere/folder", "names the machine 'elsewhere'; write file:///folder"),
        ("embedded://other", "is not embedded; there is embedded://drift-tiny"),
        ("pvc://claim/model", "needs a cluster that mounts pvc:// volumes"),
        ("oci://registry/model", "needs a cluster that mounts oci:// volumes"),
        ("s3://bucket/model", "needs a cluster that mounts s3:// volumes"),
        ("ftp://host/model", "unknown scheme ftp://"),
        ("hf://a/b/c", "is not hf://owner/name[@revision]"),
    ],
)
def test_what_cannot_be_resolved_says_what_to_give(uri: str, expected: str) -> None:
    assert expected in _message(uri)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    assert "is a file, not a folder" in _message(str(path))


def test_revisions_are_for_the_hub_and_must_agree(tmp_path: Path) -> None:
    assert "only hf:// models have revisions" in _message(str(tmp_path), "main")
    assert "contradicts hf://owner/name@v1" in _message("hf://owner/name@v1", "v2")


def test_the_hub_gives_the_models_own_files_once(hub: fake_hub.FakeHub) -> None:
    reports: list[tuple[int, int]] = []
    folder = sources.resolve(
        "hf://owner/name@main", progress=lambda done, total: reports.append((done, total))
    )
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == (
        hub.repositories["owner/name"] / "model.safetensors"
    ).read_bytes()
    size = sum((folder / name).stat().st_size for name in names)
    assert reports[-1] == (size, size)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)

    assert sources.resolve("hf://owner/name") == folder
    assert len(hub.downloads("model.safetensors")) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(
    hub: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # 10 MB: what is lost at most
    hub.break_after["model.safetensors"] = 100_000
    folder = sources.resolve("hf://owner/name")
    first, second = hub.downloads("model.safetensors")
    assert first.range is None
    assert second.range == "bytes=100000-"
    assert (folder / "model.safetensors").stat().st_size == WEIGHTS_BYTES


def test_the_hubs_refusals_are_one_line_each(hub: fake_hub.FakeHub) -> None:
    assert f"nobody/nothing is not on {hub.url}, or it is private and HF_TOKEN" in _message(
        "hf://nobody/nothing"
    )
    assert "owner/name has no revision v9" in _message("hf://owner/name", "v9")
    hub.gated.add("owner/name")
    message = _message("hf://owner/name")
    assert "is gated; accept its terms" in message
    assert "HF_TOKEN" in message


def test_a_hub_out_of_reach_says_so_and_the_cache_still_serves(
    hub: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sources.resolve("hf://owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert sources.resolve("hf://owner/name") == folder
    assert "is not complete in the local cache" in _message("hf://owner/other")


def test_a_full_disk_names_the_cache(hub: fake_hub.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    assert f"no space left in {constants.HF_HUB_CACHE} for owner/name" in _message("hf://owner/name")


def test_resolving_needs_no_torch() -> None:
    script = "import sys, drift_engine.sources; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
