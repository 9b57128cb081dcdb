"""Seconds of one forward pass: the sum over its operations of the larger of arithmetic and memory, and launches.

    m                 tokens in the pass: a prefill row's new ones, one per decode row
    four GEMMs        per layer: QKV, attention output, gate and up, down; m rows each
    LM head           a row for every decode and every prefill row: `Load` does not say which chunk is a prompt's last
    context attention from sum(n * n) / 2 and sum(n * r) of the prefill rows
    generation        attention of the decode rows, from their context tokens
    element-wise      norms, rotation with cache write, activation; traffic at the GEMMs' bandwidth
    all-reduces       two per layer where GPUs share the model; NVLink is not divided by a split

Launch constants do not depend on a lane's SMs, arithmetic is inversely proportional to them, memory up to saturation.
So more SMs are never slower, and as every term grows with its counts, more work is never quicker.

Known to be missing: idle SMs in a GEMM's last wave, and the KV that a prefill row with fewer than about forty new
tokens reads (`Load` keeps sum(n * r) but not sum(r), so it counts by its arithmetic, which is less then).
"""

from __future__ import annotations

from typing import NamedTuple

from drift_engine.errors import OptionsError
from drift_engine.hardware import lanes
from drift_engine.hardware.profiles import Hardware
from drift_engine.hardware.shapes import ModelShape
from drift_engine.latency.loads import Load


class Cost(NamedTuple):
    """Of one pass that runs alone."""

    total_s: float
    moved_bytes: float  # to and from memory
    memory_bound_s: float  # what memory of half the speed would add, to first order


class Roofline:
    """One model on one GPU or, in step, on each of the GPUs that share it."""

    def __init__(self, hardware: Hardware, shape: ModelShape) -> None:
        """Raises OptionsError where the hardware has no timings for the shape's format or number of GPUs."""
        if lanes.DTYPES.get(shape.bytes_per_parameter) not in hardware.flops_per_s:
            known = ", ".join(hardware.flops_per_s)
            raise OptionsError(
                f"bytes_per_parameter: {shape.bytes_per_parameter} is no format of {hardware.name}; known: {known}"
            )
        if shape.gpus > 1 and shape.gpus not in hardware.all_reduce:
            counts = ", ".join(map(str, sorted(hardware.all_reduce)))
            raise OptionsError(
                f"gpus: {shape.gpus}: {hardware.name} has all-reduce timings for {counts} GPUs only"
            )
        self.hardware = hardware
        self.shape = shape
        self._kv_bytes = shape.kv_bytes_per_token
        self._lanes: dict[int, lanes.Lane] = {}

    def pass_s(self, load: Load, sms: int) -> float:
        """Seconds of a pass alone on a lane of `sms` SMs; 0 for an empty one."""
        return self.cost(load, sms).total_s

    def demand(self, load: Load, sms: int) -> float:
        """Which share of the bandwidth that the whole device reaches the pass uses while it runs alone: 0 to 1."""
        return self._demand(self.cost(load, sms))

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        """How many times as long a pass takes while the other lane works on `neighbour`: 1 to `contention.bound`.

        Lanes have SMs of their own and share L2 and memory. So only the part of a pass that waits for memory gets
        longer: by what both demand above all there is (Nexus, arXiv 2507.06608; Bullet, arXiv 2504.19516), and below
        that in proportion to the neighbour's demand. Published: beside prefills of 1K to 128K tokens decode is 0 to
        20 % slower on A100 and 0 to 30 % on H100 (MuxWise, arXiv 2504.14489 v3), which bounds it here; a GEMM with
        60 % of the SMs is less than 8 % slower (Bullet). Estimates until lanes were measured side by side.
        """
        cost = self.cost(load, sms)
        if not cost.total_s:
            return 1.0
        contention = self.hardware.contention
        theirs = self.demand(neighbour, neighbour_sms)
        excess = max(0.0, self._demand(cost) + theirs - 1.0) + contention.per_demand * theirs
        return min(contention.bound, 1.0 + excess * cost.memory_bound_s / cost.total_s)

    def cost(self, load: Load, sms: int) -> Cost:
        """Time and traffic of a pass alone on a lane of `sms` SMs."""
        if not load:
            return Cost(0.0, 0.0, 0.0)
        lane = self._lanes.get(sms)
        if lane is None:
            lane = self._lanes[sms] = lanes.lane(self.hardware, self.shape, sms)
        rows, new_tokens = load.decode_rows, load.new_tokens
        tokens = rows + new_tokens
        bound_s = tokens * lane.element_wise_s
        total_s = lane.launch_s + bound_s + tokens * lane.all_reduce_s
        moved_bytes = tokens * lane.element_wise_bytes
        # Written out, not called: six calls would take as long as all the arithmetic.
        sharpness = self.hardware.gemm.sharpness
        inverse = 1.0 / sharpness
        for gemm in (*lane.layers, lane.head):
            m = tokens if gemm is not lane.head else rows + load.prefill_rows
            memory = (gemm.weights_s + m * gemm.traffic_s) ** sharpness
            both = memory + (m * gemm.compute_s) ** sharpness
            busy_s = gemm.repeats * both**inverse
            total_s += gemm.repeats * gemm.fixed_s + busy_s
            bound_s += busy_s * memory / both
            moved_bytes += gemm.weights_bytes + m * gemm.traffic_bytes
        if new_tokens:
            # New tokens see half of each other and all that is reused.
            pairs = 0.5 * load.new_squared + load.new_times_reused
            total_s += lane.prefill_launch_s + pairs * lane.score_s + new_tokens * lane.prefill_token_s
            reused_tokens = load.new_times_reused * load.prefill_rows / new_tokens  # as if rows were alike
            moved_bytes += new_tokens * lane.prefill_token_bytes + reused_tokens * self._kv_bytes
        if rows:
            sharpness = self.hardware.generation_attention.sharpness
            memory = (load.decode_context_tokens * lane.decode_kv_s) ** sharpness
            both = memory + (rows * lane.decode_row_s) ** sharpness
            busy_s = self.shape.num_layers * both ** (1.0 / sharpness)
            total_s += self.shape.num_layers * lane.decode_launch_s + busy_s
            bound_s += busy_s * memory / both
            moved_bytes += load.decode_context_tokens * self._kv_bytes
        return Cost(total_s, moved_bytes, bound_s)

    def _demand(self, cost: Cost) -> float:
        if not cost.total_s:
            return 0.0
        return min(1.0, cost.moved_bytes / (cost.total_s * self.hardware.gemm.bytes_per_s))
