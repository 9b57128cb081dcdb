"""The CUDA device: on the CPU all that is not CUDA itself (staging, buckets, padding, lanes), on a GPU the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import core_harness
import host_streams
from core_harness import Answer, Harness
from drift_engine import models, wire
from drift_engine.clock import MonotonicClock
from drift_engine.devices import cuda, cuda_lanes, graphs, packing, sharing, staging, streams
from drift_engine.devices.base import Clock, Device, Draw, Pass, Row
from drift_engine.devices.graphs import DecodeGraphs
from drift_engine.devices.runner import Runner
from drift_engine.devices.staging import Staging
from drift_engine.errors import DeviceError
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer

CPU = torch.device("cpu")

model = core_harness.model
PAGES, PAGE_TOKENS = 64, 4
VOCAB = 200  # ids below every special token of the test checkpoints


def draw(history: list[int], **sampling: float) -> Draw:
    return Draw(wire.Sampling(max_tokens=8, temperature=0.0, **sampling), history, 1)  # type: ignore[arg-type]


def filled_runner(
    model: Transformer, contexts: list[int], *, device: torch.device = CPU
) -> tuple[Runner, Pass]:
    """A runner whose KV pages hold random numbers, and a decode pass of rows with these contexts."""
    kv = KvStore.allocate(model.config, PAGES, PAGE_TOKENS, device, model.dtype)
    generator = torch.Generator(device).manual_seed(1)
    for tensor in (*kv.key, *kv.value):
        tensor.normal_(generator=generator)
    free = iter(np.random.default_rng(1).permutation(PAGES).tolist())
    rows = []
    for index, context in enumerate(contexts):
        history = [(7 * index + position) % VOCAB for position in range(context)]
        pages = [next(free) for _ in range(-(-context // PAGE_TOKENS))]
        rows.append(Row(f"r{index}", history[-1:], context - 1, pages, draw(history)))
    return Runner(model, kv, MonotonicClock(), max_requests=2), Pass(tuple(rows), ())


# staging ----------------------------------------------------------------------------------------------------


def test_staged_values_arrive_with_their_dtype_and_shape() -> None:
    memory = Staging(CPU)
    values: list[NDArray[Any]] = [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.array([], dtype=np.int64),
        np.array([1.5, -np.inf], dtype=np.float32),
        np.arange(3 * staging.BLOCK_BYTES // 8, dtype=np.int64),  # more than a block
        np.arange(5, dtype=np.int64)[::2],
    ]
    tensors = [memory.put(value) for value in values]
    memory.send()
    for tensor, value in zip(tensors, values, strict=True):
        assert tensor.shape == value.shape
        assert np.array_equal(tensor.numpy(), value)
        assert tensor.is_contiguous()


def test_starts_are_aligned() -> None:
    memory = Staging(CPU)
    starts = [memory.put(np.zeros(size, dtype=np.int32)).storage_offset() for size in (1, 3, 65, 2)]
    assert [start % staging.ALIGN_BYTES for start in np.array(starts) * 4] == [0, 0, 0, 0]


def test_fetched_results_are_copies() -> None:
    memory = Staging(CPU)
    memory.put(np.ones(3, dtype=np.int32))
    memory.send()
    tensor = torch.arange(5)
    fetched = memory.fetch(tensor)
    tensor.zero_()
    assert fetched.tolist() == [0, 1, 2, 3, 4]
    assert memory.put(np.ones(3, dtype=np.int32)).data_ptr() != fetched.data_ptr()


def test_cleared_memory_is_used_again() -> None:
    memory = Staging(CPU)
    first = [memory.put(np.zeros(size, dtype=np.uint8).view(np.int32)).data_ptr() for size in (400, 1 << 21)]
    memory.send()
    memory.clear()
    again = [memory.put(np.zeros(size, dtype=np.uint8).view(np.int32)).data_ptr() for size in (400, 1 << 21)]
    assert again == first


# buckets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_rows", "expected"),
    [
        (1, (1,)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (20, (1, 2, 4, 8, 16, 20)),
        (64, (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)),
    ],
)
def test_buckets(max_rows: int, expected: tuple[int, ...]) -> None:
    assert graphs.buckets(max_rows) == expected


@given(max_rows=st.integers(1, 1024), share=st.floats(0, 1))
def test_a_batch_gets_the_smallest_bucket_that_holds_it(max_rows: int, share: float) -> None:
    sizes = graphs.buckets(max_rows)
    rows = 1 + int(share * (max_rows - 1))
    bucket = graphs.bucket_of(rows, sizes)
    assert bucket is not None
    assert rows <= bucket <= max_rows
    assert not [size for size in sizes if rows <= size < bucket]
    assert bucket - rows < graphs.BUCKET_STEP
    assert graphs.bucket_of(max_rows + 1, sizes) is None


# graphs -----------------------------------------------------------------------------------------------------


def eager_logits(runner: Runner, work: Pass) -> torch.Tensor:
    packed = runner.pack(work)
    inputs = packing.forward_inputs(packed, torch.from_numpy)
    logits_BV = runner.forward(inputs, torch.from_numpy(packed.drawing_D), lane_sms=1)
    assert logits_BV is not None
    return logits_BV


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(1, 16), min_size=1, max_size=9), min_size=1, max_size=4))
def test_a_padded_replay_is_bit_identical_to_the_unpadded_pass(
    model: tuple[Transformer, Path], batches: list[list[int]]
) -> None:
    decode: DecodeGraphs | None = None
    for contexts in batches:  # one after the other on the same static tensors
        runner, work = filled_runner(model[0], contexts)
        if decode is None:
            stream = host_streams.HostStream()
            decode = DecodeGraphs(runner, stream.capture, max_rows=9, max_context_tokens=32, lane_sms=1)
        else:
            for kept, new in zip(decode._runner.kv.key, runner.kv.key, strict=True):
                kept.copy_(new)
            for kept, new in zip(decode._runner.kv.value, runner.kv.value, strict=True):
                kept.copy_(new)
        expected = eager_logits(runner, work)
        expected_key = [key.clone() for key in runner.kv.key]
        logits_BV = decode.run(decode.stage(runner.pack(work), torch.from_numpy))
        assert torch.equal(logits_BV, expected)
        for kept, new in zip(decode._runner.kv.key, expected_key, strict=True):
            assert torch.equal(kept, new)  # padding rows wrote nowhere


def test_a_graph_is_captured_once_per_bucket(model: tuple[Transformer, Path]) -> None:
    captures = 0

    class Stream(host_streams.HostStream):
        def capture(self, work: object) -> host_streams.HostGraph:
            nonlocal captures
            captures += 1
            return super().capture(work)  # type: ignore[arg-type]

    decode = None
    for rows in (3, 4, 1, 4, 3, 9, 8):
        runner, work = filled_runner(model[0], [5] * rows)
        decode = decode or DecodeGraphs(
            runner, Stream().capture, max_rows=9, max_context_tokens=32, lane_sms=1
        )
        decode.run(decode.stage(runner.pack(work), torch.from_numpy))
    assert decode is not None
    assert decode.captured == (1, 4, 8, 9)
    assert captures == 4


def test_only_decode_passes_up_to_the_largest_bucket_are_replayed(model: tuple[Transformer, Path]) -> None:
    runner, work = filled_runner(model[0], [5] * 5)
    stream = host_streams.HostStream()
    decode = DecodeGraphs(runner, stream.capture, max_rows=4, max_context_tokens=32, lane_sms=1)
    assert not decode.takes(work)
    assert decode.takes(Pass(work.decode[:4], ()))
    assert not decode.takes(Pass(work.decode[:2], work.decode[2:4]))
    assert not decode.takes(Pass((), work.decode[:1]))


# lanes ------------------------------------------------------------------------------------------------------


def every_kind_of_request(harness: Harness) -> dict[str, Answer]:
    """Prompts, chunks, reuse and all that a draw may ask for, at once."""
    asks = [
        {"temperature": 0.0},
        {"temperature": 0.9, "seed": 3, "top_p": 0.8},
        {"temperature": 0.7, "seed": 4, "presence_penalty": 0.5, "frequency_penalty": 0.2},
        {"temperature": 0.0, "repetition_penalty": 1.3, "logprobs": 3},
        {"temperature": 0.0, "logit_bias": {5: 4.0, 9: -100.0}, "logprobs": 0},
        {"temperature": 0.0, "min_tokens": 4},
        {"temperature": 0.8, "seed": 5, "top_k": 3, "min_p": 0.1},
    ]
    for index, ask in enumerate(asks):
        prompt = [(3 * position) % VOCAB for position in range(9)] + list(range(index, index + 6 + 3 * index))
        sampling = wire.Sampling(max_tokens=9, **ask)  # type: ignore[arg-type]
        harness.submit(f"r{index}", prompt, sampling, arrival_s=float(index))
        harness.step()
    grammar = wire.Grammar(wire.GrammarKind.REGEX, "[a-d]+x")
    harness.submit("grammar", [1, 2, 3], wire.Sampling(max_tokens=9, temperature=0.0, grammar=grammar))
    harness.run()
    return harness.answers


@pytest.mark.parametrize("with_graphs", [False, True])
@pytest.mark.parametrize("chunk_tokens", [None, 5])
def test_the_lanes_answers_are_the_cpus(
    model: tuple[Transformer, Path], with_graphs: bool, chunk_tokens: int | None
) -> None:
    def make_device(runner: Runner, clock: Clock) -> Device:
        return host_streams.open_device(runner, clock, max_running=3, graphs=with_graphs)

    with Harness(*model, chunk_tokens=chunk_tokens) as harness:
        expected = every_kind_of_request(harness)
    with Harness(*model, chunk_tokens=chunk_tokens, make_device=make_device) as harness:
        answers = every_kind_of_request(harness)
    assert [dataclasses.replace(a, logprobs=[]) for a in answers.values()] == [
        dataclasses.replace(a, logprobs=[]) for a in expected.values()
    ]
    for name, answer in answers.items():
        assert answer.logprobs == expected[name].logprobs, name


def test_an_event_is_done_when_the_device_is(model: tuple[Transformer, Path]) -> None:
    runner, work = filled_runner(model[0], [3, 5])
    stream = host_streams.HostStream()
    device = host_streams.open_device(runner, MonotonicClock(), stream=stream)
    stream.held = True
    event = device.whole.launch(work)
    assert not event.done()
    assert not device.wait([event], 0.001)
    stream.held = False
    assert device.wait([event], 0.0)
    results = event.results()
    assert results.drawn.keys() == {"r0", "r1"}
    assert 0 < results.forward_s <= results.pass_s
    assert event.results() is results
    device.close()


def test_passes_in_flight_share_no_memory(model: tuple[Transformer, Path]) -> None:
    runner, work = filled_runner(model[0], [3, 5, 7])
    device = host_streams.open_device(runner, MonotonicClock())
    expected = [device.whole.launch(Pass((row,), ())).results().drawn for row in work.decode]
    events = [device.whole.launch(Pass((row,), ())) for row in work.decode]
    assert [event.results().drawn for event in events] == expected


def test_passes_that_nobody_reads_have_a_bound(model: tuple[Transformer, Path]) -> None:
    runner, work = filled_runner(model[0], [3])
    device = host_streams.open_device(runner, MonotonicClock())
    events = [device.whole.launch(work) for _ in range(cuda_lanes.MAX_IN_FLIGHT)]
    with pytest.raises(AssertionError, match="never read"):
        device.whole.launch(work)
    for event in events:
        event.results()
    device.whole.launch(work).results()


def test_a_failure_of_the_driver_carries_its_code() -> None:
    error = torch.AcceleratorError("CUDA error: an illegal memory access\nmore")
    error.error_code = 700  # type: ignore[attr-defined]
    with (
        pytest.raises(
            DeviceError, match=r"^the GPU failed while testing: CUDA error: an illegal memory access$"
        ) as raised,
        streams.translated("testing"),
    ):
        raise error
    assert raised.value.code == 700


def test_our_own_mistakes_stay_what_they_are() -> None:
    with pytest.raises(AssertionError, match="ours"), streams.translated("testing"):
        raise AssertionError("ours")


# a real GPU -------------------------------------------------------------------------------------------------


def on_gpu(folder: Path) -> Transformer:
    return models.load(folder, torch.device("cuda"), torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("with_graphs", [False, True])
def test_a_gpus_greedy_tokens_are_the_cpus(model: tuple[Transformer, Path], with_graphs: bool) -> None:
    def make_device(runner: Runner, clock: Clock) -> Device:
        return cuda.open_device(
            runner,
            clock,
            sharing.alone,
            max_running=8,
            max_context_tokens=PAGES * PAGE_TOKENS,
            graphs=with_graphs,
        )

    requests = [
        (f"r{i}", [(7 * p + i) % VOCAB for p in range(3 + 9 * i)], core_harness.greedy(12)) for i in range(5)
    ]
    expected = core_harness.alone(*model, requests)
    with Harness(on_gpu(model[1]), model[1], chunk_tokens=8, pages=PAGES, make_device=make_device) as harness:
        for request in requests:
            harness.submit(*request)
        harness.run()
        assert {name: answer.token_ids for name, answer in harness.answers.items()} == expected


@pytest.mark.gpu
def test_a_replayed_graph_gives_the_eager_logits(model: tuple[Transformer, Path]) -> None:
    gpu = torch.device("cuda")
    runner, work = filled_runner(on_gpu(model[1]), [5, 9, 2], device=gpu)
    drawn = {}
    for with_graphs in (False, True):
        device = cuda.open_device(
            runner,
            MonotonicClock(),
            sharing.alone,
            max_running=8,
            max_context_tokens=32,
            graphs=with_graphs,
        )
        for _ in range(3):  # warm-up and capture, then replays
            event = device.whole.launch(work)
            assert device.wait([event], 60.0)
            drawn[with_graphs] = event.results()
        device.close()
    assert drawn[True].drawn == drawn[False].drawn
    assert 0 < drawn[True].forward_s <= drawn[True].pass_s
