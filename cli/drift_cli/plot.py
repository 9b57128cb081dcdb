"""`drift plot`: pictures of results and token-time logs. The work is in `drift_engine.bench`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drift_engine.bench.pictures import Picture
    from drift_engine.bench.series import Log, Run

KINDS = ("auto", "goodput", "attainment", "latency", "cdf")
SUFFIXES = (".svg", ".png")
EXIT_USAGE = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """All options of `drift plot`; docs/bench.md explains them."""
    parser.description = "Draw results of `drift bench` and its token-time logs. See docs/bench.md."
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT.json", help="what --json wrote")
    parser.add_argument(
        "--log",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="LOG.jsonl",
        help="what --log wrote, gzipped or not; in the order of the results, if there are any",
    )
    parser.add_argument(
        "--out", type=_picture_file, required=True, metavar="FILE", help=" or ".join(SUFFIXES)
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="auto",
        help="by default goodput and attainment of runs at several rates, latencies of other runs, cdf of logs",
    )
    parser.add_argument(
        "--label",
        type=lambda text: text.split(","),
        default=[],
        metavar="A,B,...",
        help="names of the lines, or of the files; files of one name make one line",
    )
    parser.add_argument("--title", metavar="T", help="by default what all runs share")
    parser.add_argument("--slo-ttft-ms", type=float, metavar="A", help="bound to mark, for logs alone")
    parser.add_argument("--slo-tbt-ms", type=float, metavar="B", help="bound to mark, for logs alone")


def run(options: argparse.Namespace) -> int:
    """The exit code: 0, or 2 for options that can't be used. Raises EngineError for files that can't."""
    from drift_engine.bench import pictures

    try:
        runs, logs = _read(options)
    except ValueError as error:
        print(f"drift plot: {error}", file=sys.stderr)
        return EXIT_USAGE
    picture = pictures.picture(runs, logs, options.kind, options.label, options.title)
    _write(options.out, picture)
    for warning in picture.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _picture_file(text: str) -> Path:
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither {' nor '.join(SUFFIXES)}")
    return path


def _read(options: argparse.Namespace) -> tuple[list[Run], list[Log]]:
    """Raises ValueError for options that do not go together, EngineError for files."""
    from drift_engine.bench import records, results
    from drift_engine.bench.series import Log, Run

    if not options.results and not options.log:
        raise ValueError("RESULT.json or --log LOG.jsonl is needed")
    slo = results.Slo(ttft_ms=options.slo_ttft_ms, tbt_ms=options.slo_tbt_ms)
    if options.results and slo.bounded:
        raise ValueError("--slo-ttft-ms and --slo-tbt-ms are for logs alone: a result says how it was judged")
    runs = [Run(source=str(path), result=results.read(path)) for path in options.results]
    logs = [
        Log(source=str(path), records=records.read(path), label=_stem(path), slo=slo) for path in options.log
    ]
    return runs, logs


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _write(path: Path, picture: Picture) -> None:
    from drift_engine.bench.series import PlotError

    try:
        from drift_engine.bench import drawing
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise PlotError(f"plot: needs {missing}, which the extra `plot` of drift-serve installs") from error
    content = drawing.draw(picture, path.suffix)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PlotError(f"{path}: can't be written: {error.strerror}") from error
