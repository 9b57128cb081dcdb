"""The `drift` command itself: what it says, what it costs, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import documents
from drift_cli import main


def drift(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drift_cli", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("up", "--help"),
        ("validate", "--help"),
        ("plot", "--help"),
        ("status", "--help"),
        ("version",),
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    script = f"""
import sys
from drift_cli.main import main
try:
    main({list(arguments)!r})
except SystemExit as end:
    assert not end.code
heavy = {{"torch", "aiohttp", "transformers", "fastapi", "numpy", "matplotlib", "kubernetes"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_top_level_help_imports_no_command() -> None:
    script = """
import sys
from drift_cli import main
try:
    main.dispatch(["--help"])
except SystemExit:
    pass
assert not {module for module, _ in main.COMMANDS.values()} & set(sys.modules)
assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)


def test_help_names_every_command() -> None:
    text = drift("--help").stdout
    assert all(name in text and summary in text for name, (_, summary) in main.COMMANDS.items())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["upp"], "drift: unknown command 'upp'; did you mean up?"),
        (
            ["serve"],
            "drift: unknown command 'serve'; choose from up, status, explain, top, router, validate, bench, "
            "calibrate, plot, simulate, plan, version",
        ),
        (["--fast", "up"], "drift: unrecognized arguments: --fast"),
        (["up", "--port", "x"], "drift up: argument --port: 'x' is not a port between 0 and 65535"),
        (["up", "--port", "65536"], "drift up: argument --port: '65536' is not a port between 0 and 65535"),
        (["up", "--fil", "x"], "drift up: unrecognized arguments: --fil x"),
        (["plot", "x.json"], "drift plot: the following arguments are required: --out"),
        (["validate"], "drift validate: the following arguments are required: -f/--file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_misuse_is_a_line_and_a_pointer(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == main.MISUSED
    first, second = capsys.readouterr().err.splitlines()
    assert first == line
    assert second.startswith("Try `drift ")


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == main.MISUSED
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 0
    assert capsys.readouterr().out.startswith("drift ")


def test_validate_says_ok_or_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(documents.minimal()))
    bad.write_text(yaml.safe_dump(documents.minimal(slo={"tbt": {"targetMs": 0}}, paused=1), sort_keys=False))
    assert main.main(["validate", "-f", str(good), "-f", str(bad)]) == main.FAILED
    out, err = capsys.readouterr()
    assert out == f"{good}: ok (demo)\n"
    assert err.splitlines() == [
        f"{bad}:10: spec.slo.tbt.targetMs: 0 is below the minimum 1",
        f"{bad}:11: spec.paused: 1 is not true or false",
    ]


def test_reader_that_leaves_early_is_no_error() -> None:
    program = "import sys; sys.stdin.read(); from drift_cli.main import main; sys.exit(main(['version']))"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # before it writes: it waits for our end of its stdin
    process.stdin.close()
    assert process.wait(timeout=60) == main.PIPE_CLOSED
    assert process.stderr.read() == ""
    process.stderr.close()
