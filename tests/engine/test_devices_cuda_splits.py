"""Lanes of a split GPU: a request's tokens are those of a lone run, in whatever order the streams get on."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import core_harness
import host_streams
import random_schedules
from core_harness import Harness
from drift_engine import models, wire
from drift_engine.clock import MonotonicClock
from drift_engine.devices import cuda, sharing
from drift_engine.devices.base import Clock, Device, Draw, Event, Pass, Row
from drift_engine.devices.cuda import CudaDevice
from drift_engine.devices.runner import Runner
from drift_engine.devices.streams import CudaStreams
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer
from fake_gpu_driver import FakeDriver
from host_streams import HostDevice, HostGpu, HostStream
from random_schedules import VOCAB, Scheduled
from shuffled_device import DiceClock, Erratic

PAGES, PAGE_TOKENS = 64, 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Transformer, Path]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield core_harness.tiny_model(tmp_path_factory.mktemp("models"), num_hidden_layers=4)
    torch.set_num_threads(threads)


class ErraticClock(DiceClock):
    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice

    def now_s(self) -> float:
        self.time_s += self._dice.choice([0.0, 0.001, 0.02])
        return self.time_s


class Diced(Harness):
    """A core over a GPU of four SMs whose streams, latencies and clock are thrown."""

    device: HostDevice

    def __init__(
        self,
        model: Transformer,
        folder: Path,
        seed: int,
        share: sharing.Share = sharing.best,
        **options: object,
    ) -> None:
        dice = random.Random(seed)

        def make_device(runner: Runner, clock: Clock) -> Device:
            return host_streams.open_device(runner, clock, share, gpu=HostGpu(dice))

        super().__init__(
            model,
            folder,
            make_device=make_device,
            clock=ErraticClock(dice),
            latency=Erratic(dice),
            **options,  # type: ignore[arg-type]
        )

    @property
    def waits(self) -> int:
        return sum(stream.waits for stream in self.device.gpu.streams)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workload=random_schedules.workloads(most_requests=5, most_tokens=10),
    mode=st.sampled_from([wire.Mode.MUX, wire.Mode.AUTO]),
    share=st.sampled_from([sharing.best, sharing.overlapping]),
    pages=st.sampled_from([17, 24, 64]),
    max_step_tokens=st.sampled_from([9, 16, 256]),
    prefix=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_tokens_are_those_of_a_lone_run_for_any_order_of_the_streams(
    model: tuple[Transformer, Path],
    workload: list[Scheduled],
    mode: wire.Mode,
    share: sharing.Share,
    pages: int,
    max_step_tokens: int,
    prefix: bool,
    seed: int,
) -> None:
    expected = core_harness.alone(*model, [scheduled.request for scheduled in workload])
    if share is sharing.overlapping:  # the other modes of two lanes take none that share SMs
        mode = wire.Mode.OVERLAP
    with Diced(
        *model, seed, share, mode=mode, pages=pages, max_step_tokens=max_step_tokens, prefix=prefix
    ) as harness:
        random_schedules.play(harness, workload, expected)


def test_streams_work_at_the_same_time_and_prefills_move_between_them(
    model: tuple[Transformer, Path],
) -> None:
    requests = [(f"r{i}", list(range(i, i + 40)), core_harness.greedy(20)) for i in range(6)]
    expected = core_harness.alone(*model, requests)
    with Diced(*model, 7, mode=wire.Mode.MUX, pages=256) as harness:
        for request in requests:
            harness.submit(*request)
            for _ in range(12):
                harness.step()
        harness.run()
        assert {name: answer.token_ids for name, answer in harness.answers.items()} == expected
        lanes = {span.lane.partition("-")[0] for span in harness.core.spans}
        assert lanes == {"whole", "decode", "prefill"}
        assert harness.device.gpu.together > 10
        assert harness.waits > 10


# single launches --------------------------------------------------------------------------------------------


def opened(
    model: Transformer, gpu: HostGpu | None = None, *, device: torch.device | None = None
) -> CudaDevice:
    """A split device; on a real GPU in the best way that it bears."""
    kv = KvStore.allocate(model.config, PAGES, PAGE_TOKENS, model.device, model.dtype)
    runner = Runner(model, kv, MonotonicClock(), max_requests=2)
    if device is None:
        return host_streams.open_device(runner, MonotonicClock(), sharing.best, gpu=gpu)
    return cuda.open_device(runner, MonotonicClock(), max_running=8, max_context_tokens=PAGES * PAGE_TOKENS)


def prompt(name: str, first_page: int, tokens: int = 19) -> Pass:
    history = [(7 * position) % VOCAB for position in range(tokens)]
    pages = list(range(first_page, first_page + 6))
    draw = Draw(wire.Sampling(max_tokens=8, temperature=0.0), history, tokens)
    return Pass((), (Row(name, history, 0, pages, draw),))


def token(device: CudaDevice, event: Event, name: str) -> int:
    while not device.wait([event], 60.0):
        pass
    return event.results().drawn[name][0].token_id


def test_what_a_cut_pass_left_behind_lives_until_the_lane_that_reads_it_is_done(
    model: tuple[Transformer, Path],
) -> None:
    gpu = HostGpu()
    device = opened(model[0], gpu)
    first, second = (device.lanes(split)[1] for split in device.splits[:2])
    expected = token(device, device.whole.launch(prompt("alone", 0)), "alone")
    cut = device.cut(prompt("r", 10))
    first.launch_layers(cut, 1).results()
    assert cut.state is not None
    left = weakref.ref(cut.state[0])
    gpu.dice = random.Random(1)  # from here on nothing runs before somebody looks
    event = second.launch_layers(cut, 2)
    while second._stream.queue:  # type: ignore[attr-defined]
        second._stream.step()  # type: ignore[attr-defined]
    gc.collect()
    assert left() is not None  # the first lane's next pass must not get this memory while it is read
    event.results()
    gc.collect()
    assert left() is None
    assert token(device, device.whole.launch_layers(cut, cut.layers), "r") == expected
    device.close()


def move(model: Transformer, seed: int) -> None:
    """Each of the four layers on a lane of its own, all launched before the first has run."""
    dice = random.Random(seed)
    device = opened(model, HostGpu(dice))
    expected = token(device, device.whole.launch(prompt("alone", 0)), "alone")
    lanes = [device.whole, *(device.lanes(split)[1] for split in device.splits)]
    dice.shuffle(lanes)
    cut = device.cut(prompt("r", 10))
    events = [lane.launch_layers(cut, stop) for stop, lane in enumerate(lanes, start=1)]
    assert token(device, events[-1], "r") == expected
    for event in events[:-1]:
        assert event.results().drawn == {}
    device.close()


def test_every_move_of_a_cut_pass_gives_the_same_token(model: tuple[Transformer, Path]) -> None:
    for seed in range(20):
        move(model[0], seed)


def test_without_waits_layers_overtake_each_other(
    model: tuple[Transformer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streams of these tests do run in orders that go wrong."""
    monkeypatch.setattr(HostStream, "wait", lambda self, mark: None)
    with pytest.raises(AssertionError, match="layers overtook those before them"):
        move(model[0], 1)


def step(tokens: int = 19, drawn: int = 5) -> Pass:
    """The decode step behind `prompt("r", 10)`, had it drawn this token."""
    history = [*prompt("r", 10, tokens).prefill[0].token_ids, drawn]
    draw = Draw(wire.Sampling(max_tokens=8, temperature=0.0, logprobs=3), history, tokens)
    return Pass((Row("r", [drawn], tokens, list(range(10, 16)), draw),), ())


def test_a_requests_next_pass_waits_for_its_last_one_on_another_lane(
    model: tuple[Transformer, Path],
) -> None:
    """Prefill and its decode step are launched at once, on lanes of a split and of the whole device."""
    device = opened(model[0])
    device.whole.launch(prompt("r", 10)).results()
    expected = device.whole.launch(step()).results().drawn["r"]
    device.close()
    for seed in range(20):
        dice = random.Random(seed)
        device = opened(model[0], HostGpu(dice))
        decode_lane, prefill_lane = device.lanes(device.splits[seed % 3])
        first, second = dice.choice(
            [(prefill_lane, decode_lane), (prefill_lane, device.whole), (device.whole, decode_lane)]
        )
        first.launch(prompt("r", 10))
        event = second.launch(step())
        while not device.wait([event], 60.0):
            pass
        assert event.results().drawn["r"] == expected, seed
        device.close()


def test_a_dropped_pass_gives_its_memory_back_to_its_first_lane(model: tuple[Transformer, Path]) -> None:
    device = opened(model[0])
    first, second = (device.lanes(split)[1] for split in device.splits[:2])
    for _ in range(20):  # more than may be in flight
        cut = device.cut(prompt("r", 10))
        first.launch_layers(cut, 1).results()
        second.launch_layers(cut, 2).results()
        cut.drop()
    device.close()


def test_closing_destroys_the_partitions_after_the_last_pass(model: tuple[Transformer, Path]) -> None:
    driver = FakeDriver(4, 1)
    kv = KvStore.allocate(model[0].config, PAGES, PAGE_TOKENS, model[0].device, model[0].dtype)
    runner = Runner(model[0], kv, MonotonicClock(), max_requests=2)
    device = host_streams.open_device(runner, MonotonicClock(), sharing.best, driver=driver)
    assert device.splits == (wire.Split(1, 3), wire.Split(2, 2), wire.Split(3, 1))
    device.lanes(device.splits[0])[1].launch(prompt("r", 0))
    assert driver.alive
    device.close()
    assert not driver.alive


# a real GPU -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_gpus_lanes_give_the_token_of_the_whole_gpu(model: tuple[Transformer, Path]) -> None:
    gpu = torch.device("cuda")
    on_gpu = models.load(model[1], gpu, torch.float32)
    device = opened(on_gpu, device=gpu)
    assert device.sharing in (wire.Sharing.BALANCED, wire.Sharing.BY_COUNT), device.sharing_reason
    expected = token(device, device.whole.launch(prompt("alone", 0)), "alone")
    for split in device.splits:
        lanes = (device.lanes(split)[1], device.lanes(device.splits[0])[1], device.whole)
        cut = device.cut(prompt("r", 10))
        for stop, lane in enumerate(lanes, start=1):
            lane.launch_layers(cut, stop)
        event = device.lanes(split)[1].launch_layers(cut, cut.layers)
        assert token(device, event, "r") == expected, split
        decode_lane = device.lanes(split)[0]
        history = [*prompt("r", 10).prefill[0].token_ids, expected]
        row = Row("r", [expected], 19, list(range(10, 16)), Draw(wire.Sampling(max_tokens=8), history, 19))
        for _ in range(3):  # captures, then replays
            token(device, decode_lane.launch(Pass((row,), ())), "r")
        device.release("r")
    device.close()


@pytest.mark.gpu
@pytest.mark.parametrize("share", [sharing.best, sharing.overlapping])
def test_a_split_gpus_greedy_tokens_are_the_cpus(
    model: tuple[Transformer, Path], share: sharing.Share
) -> None:
    def make_device(runner: Runner, clock: Clock) -> Device:
        return cuda.open_device(runner, clock, share, max_running=8, max_context_tokens=PAGES * PAGE_TOKENS)

    requests = [
        (f"r{i}", [(7 * p + i) % VOCAB for p in range(3 + 9 * i)], core_harness.greedy(12)) for i in range(5)
    ]
    expected = core_harness.alone(*model, requests)
    on_gpu = models.load(model[1], torch.device("cuda"), torch.float32)
    for seed in range(3):
        with Harness(
            on_gpu,
            model[1],
            mode=wire.Mode.OVERLAP if share is sharing.overlapping else wire.Mode.MUX,
            pages=PAGES,
            make_device=make_device,
            latency=Erratic(random.Random(seed)),
        ) as harness:
            for request in requests:
                harness.submit(*request)
                harness.step()
            harness.run()
            assert {name: answer.token_ids for name, answer in harness.answers.items()} == expected


@pytest.mark.gpu
def test_every_stream_has_its_own_cublas_workspace() -> None:
    torch.cuda.synchronize()
    left = torch.randn(256, 256, device="cuda")
    shared = sharing.best(CudaStreams(left.device))
    taken = []
    for part in shared.parts[:2]:
        for stream in (part.decode, part.prefill):
            with stream.scope():
                before = torch.cuda.memory_allocated()
                product = left @ left
                taken.append(torch.cuda.memory_allocated() - before - product.untyped_storage().nbytes())
    torch.cuda.synchronize()
    assert min(taken) > 0, taken
    torch._C._cuda_clearCublasWorkspaces()
    shared.close()
