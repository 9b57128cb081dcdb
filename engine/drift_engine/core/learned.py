"""The node's latency model: read from its file, or calibrated; written back when the node stops."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from drift_engine.core import calibrating
from drift_engine.core.resolving import CoreConfig
from drift_engine.devices.base import Device
from drift_engine.latency import LatencyModel, fitting, saved
from drift_engine.models.config import ModelConfig
from drift_engine.version import drift_version

log = logging.getLogger(__name__)


def identity(config: CoreConfig, model: ModelConfig, hardware: str) -> saved.Identity:
    """What times depend on."""
    shape = f"{model.architecture} {model.num_parameters} parameters, {model.num_layers} layers"
    cores = f", {config.threads} threads" if config.device == "cpu" else ""
    return saved.Identity(hardware + cores, shape, config.dtype, drift_version())


def read(path: Path, of: saved.Identity) -> LatencyModel | None:
    """What another run of the same model on the same hardware learned; None where it left nothing to use."""
    found = saved.load(path, of)
    if isinstance(found, saved.Refused):
        log.info("latency model: %s; calibrating", found.reason)
        return None
    latency = LatencyModel()
    latency.restore(found)
    return latency


def write(path: Path, of: saved.Identity, latency: LatencyModel) -> None:
    """A disk that does not take it costs the next start a calibration and nothing else."""
    try:
        saved.save(path, of, latency.snapshot())
    except OSError as error:
        log.warning("latency model: %s can't be written: %s", path, error.strerror)


def calibrate(device: Device, bounds: calibrating.Bounds, pairs_share: float) -> LatencyModel:
    """From passes on this device. `pairs_share` as in `calibrating.assume`. Raises DeviceError where one fails."""
    start_s = time.monotonic()
    measured = calibrating.measure(device, bounds)
    latency = LatencyModel()
    if measured.alone:
        fit = fitting.fit(measured.alone + calibrating.assume(measured.alone, pairs_share))
        latency.calibrate(fit)
        latency.calibrate_contention(measured.beside)
        log.info(
            "calibrated with %d passes in %.1f s, off by %.0f %% on average",
            fit.measurements,
            time.monotonic() - start_s,
            100 * fit.mape,
        )
    return latency
