"""The CUDA driver as `partitions.Driver`, through cuda-python: one method per driver call or two.

Works with the bindings of CUDA 12.9 and 13.x. `cuDevSmResourceSplitByCount` is the same in all of them; 13.1 brought
workqueues (and `cuDevSmResourceSplit`, whose uneven groups are not needed here: parts are merged from even ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drift_kernels.driver_errors import DriverError
from drift_kernels.partitions import Context, Resource

QUEUES_PER_CONTEXT = 1
"""Workloads at a time on a part: its one stream. With more, 16 parts would ask for more queues than there are
(CUDA_DEVICE_MAX_CONNECTIONS, at most 32), and the driver would let parts share them again."""


class CudaDriver:
    """Of one GPU, whose primary context is current: torch makes it so when it first uses the GPU."""

    def __init__(self, ordinal: int) -> None:
        """Raises DriverError where there is no driver or no binding."""
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise DriverError(
                "cuda.bindings", None, "not installed", "install the package cuda-bindings (extra gpu)"
            ) from error
        self._cuda: Any = driver
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", ordinal)

    def version(self) -> str:
        from cuda import bindings

        number = int(self._call("cuDriverGetVersion"))
        return f"driver of CUDA {number // 1000}.{number % 1000 // 10}, cuda-bindings {bindings.__version__}"

    def sms(self) -> Resource:
        kind = self._cuda.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
        return self._call("cuDeviceGetDevResource", self._device, kind)

    def workqueues(self) -> Resource:
        cuda = self._cuda
        kind = getattr(cuda.CUdevResourceType, "CU_DEV_RESOURCE_TYPE_WORKQUEUE_CONFIG", None)
        if kind is None:
            reason = "these cuda-bindings are older than CUDA 13.1"
            raise DriverError("cuDeviceGetDevResource", None, "no workqueue resource", reason)
        resource = self._call("cuDeviceGetDevResource", self._device, kind)
        resource.wqConfig.sharingScope = cuda.CUdevWorkqueueConfigScope.CU_WORKQUEUE_SCOPE_GREEN_CTX_BALANCED
        resource.wqConfig.wqConcurrencyLimit = QUEUES_PER_CONTEXT
        return resource

    def split(self, sms: Resource) -> tuple[Sequence[Resource], Resource]:
        # Bindings before 13.1 don't tell the smallest size; the driver rounds a wish for one SM up to it.
        fewest = getattr(sms.sm, "minSmPartitionSize", 0) or 1
        _, count, _ = self._call("cuDevSmResourceSplitByCount", 0, sms, 0, fewest)  # asks how many
        if not count:
            return [], sms
        groups, count, rest = self._call("cuDevSmResourceSplitByCount", count, sms, 0, fewest)
        return groups[:count], rest

    def count(self, sms: Resource) -> int:
        return int(sms.sm.smCount) if sms is not None else 0

    def create_context(self, resources: Sequence[Resource]) -> Context:
        descriptor = self._call("cuDevResourceGenerateDesc", list(resources), len(resources))
        flags = self._cuda.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM  # must be set before CUDA 13
        return self._call("cuGreenCtxCreate", descriptor, self._device, int(flags))

    def context_sms(self, context: Context) -> int:
        kind = self._cuda.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
        return self.count(self._call("cuGreenCtxGetDevResource", context, kind))

    def create_stream(self, context: Context, *, urgent: bool) -> int:
        least, greatest = self._call("cuCtxGetStreamPriorityRange")
        flags = int(self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return int(self._call("cuGreenCtxStreamCreate", context, flags, greatest if urgent else least))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", self._cuda.CUstream(stream))

    def destroy_context(self, context: Context) -> None:
        self._call("cuGreenCtxDestroy", context)

    def _call(self, name: str, *arguments: Any) -> Any:
        """What the call returns beside its status."""
        function = getattr(self._cuda, name, None)
        if function is None:
            raise DriverError(name, None, "not in these cuda-bindings")
        try:
            status, *values = function(*arguments)
        except RuntimeError as error:  # the binding found no driver, or one without this call
            raise DriverError(name, None, str(error).partition("\n")[0]) from error
        if int(status) != 0:
            raise DriverError(name, int(status), status.name)
        return values[0] if len(values) == 1 else tuple(values)
