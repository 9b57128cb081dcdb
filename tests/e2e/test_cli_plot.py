"""`drift plot`, from files to files."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import bench_runs
from drift_cli import main, plot
from drift_engine.bench import drawing, pictures, records, results
from drift_engine.bench.results import Slo


@pytest.fixture
def sweep(tmp_path: Path) -> list[str]:
    made = []
    for mode, late in (("mux", 2), ("fused", 5)):
        for rate_rps in (1, 2, 3):
            path = tmp_path / f"{mode}-{rate_rps}.json"
            results.write(bench_runs.result(mode, rate_rps, late=late * (rate_rps - 1)), path)
            made.append(str(path))
    return made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.jsonl"
    writer = records.LogWriter(path)
    for record in bench_runs.records(late=3):
        writer.append(record)
    writer.close()
    return path


def drawn(out: Path, *arguments: str) -> list[str]:
    """The texts of the picture that `drift plot` makes."""
    assert main.main(["plot", *arguments, "--out", str(out)]) == 0
    root = ElementTree.fromstring(out.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_sweep(sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = drawn(tmp_path / "sweep.svg", *sweep)
    assert {
        "measured, small, synthetic, 100 in, 4 out",
        "promise: TTFT ≤ 200 ms and TBT ≤ 50 ms for 90 % of requests",
        "offered rate (requests/s)",
        "goodput (requests/s)",
        "attainment (% of requests)",
        "mux",
        "fused",
        "target 90 %",
        "mux (90 % up to 1.5/s)",
        "fused (90 % up to 1.2/s)",
        "every request good",
        "target missed",
    } <= set(texts)
    assert capsys.readouterr() == ("", "")


def test_latencies(sweep: list[str], tmp_path: Path) -> None:
    texts = drawn(tmp_path / "latency.svg", sweep[0], sweep[3], "--label", "$new$,_old", "--title", "A & B")
    assert {"A & B", "TTFT (ms)", "TBT (ms)", "TPOT (ms)", "P50", "P90", "P99"} <= set(texts)
    assert {"$new$", "_old", "bound 200 ms", "bound 50 ms", "100", "30"} <= set(texts)


def test_distributions(log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    texts = drawn(tmp_path / "cdf.svg", "--log", str(log), str(packed), "--slo-tbt-ms", "40")
    assert {"TTFT (ms)", "TBT (ms)", "share of answered requests (%)", "share of gaps (%)"} <= set(texts)
    assert {"tokens", "packed", "bound 40 ms"} <= set(texts)


def test_the_same_files_give_the_same_bytes(
    sweep: list[str], log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    drawn(one, sweep[0], "--log", str(log))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other"}):  # a user's own settings
        drawn(two, sweep[0], "--log", str(log))
    assert one.read_bytes() == two.read_bytes()
    assert not re.search(r"dc:date|\d{4}-\d\d-\d\dT", one.read_text())


def test_png(sweep: list[str], tmp_path: Path) -> None:
    out = tmp_path / "sweep.png"
    assert main.main(["plot", "--out", str(out), *sweep]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_mixed_promises_are_a_warning(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    results.write(bench_runs.result("mux", 2, slo=Slo(ttft_ms=200, tbt_ms=20)), other)
    drawn(tmp_path / "mixed.svg", *sweep, str(other))
    assert capsys.readouterr().err.startswith("warning: the runs were judged by 2 promises")


def test_files_that_can_not_be_used_are_named(
    sweep: list[str], log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, missing, broken = tmp_path / "out.svg", tmp_path / "missing.json", tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(log.read_bytes())[:-20])
    for arguments, message in (
        ([str(missing), "--out", str(out)], f"drift: {missing}: can't be read: No such file or directory"),
        ([str(log), "--out", str(out)], f"drift: {log}: is not a result of schema drift.result/1"),
        (
            ["--log", sweep[0], "--out", str(out)],
            f"drift: {sweep[0]}: is not a log of schema drift.token-times/1",
        ),
        (["--log", str(broken), "--out", str(out)], f"drift: {broken}: can't be unpacked: "),
        (
            [*sweep, "--out", str(tmp_path / "no" / "x.svg")],
            f"drift: {tmp_path}/no/x.svg: can't be written: No such",
        ),
    ):
        assert main.main(["plot", *arguments]) == main.FAILED
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(message)
    assert not out.exists()


def test_misuse(sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "drift plot: RESULT.json or --log LOG.jsonl is needed"),
        (["--log", "x", "--slo-tbt-ms", "0"], "drift plot: slo.tbt_ms: 0.0 is not above 0"),
        ([*sweep, "--slo-tbt-ms", "9"], "drift plot: --slo-ttft-ms and --slo-tbt-ms are for logs alone"),
    ):
        assert main.main(["plot", *arguments, "--out", str(tmp_path / "x.svg")]) == main.MISUSED
        assert capsys.readouterr().err.startswith(message)
    with pytest.raises(SystemExit) as ended:
        main.main(["plot", *sweep, "--out", "x.pdf"])
    assert ended.value.code == main.MISUSED
    assert "argument --out: 'x.pdf' ends in neither .svg nor .png" in capsys.readouterr().err


def test_without_matplotlib_its_extra_is_named(sweep: list[str], tmp_path: Path) -> None:
    arguments = ["plot", *sweep, "--out", str(tmp_path / "x.svg")]
    script = (
        "import sys; sys.modules['matplotlib'] = None; "
        f"from drift_cli.main import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    message = "drift: plot: needs matplotlib, which the extra `plot` of drift-serve installs\n"
    assert (done.returncode, done.stderr) == (main.FAILED, message)


def test_the_options_name_what_the_modules_offer() -> None:
    """The command's module loads neither of them for `--help`."""
    assert plot.KINDS == pictures.KINDS
    assert plot.SUFFIXES == drawing.SUFFIXES
