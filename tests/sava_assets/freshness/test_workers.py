"""Who works on the pieces of a computation: in this process, and on a Ray cluster as far as it needs none."""

import operator
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sava_assets.freshness import workers
from sava_assets.freshness.computation import Run
from sava_assets.freshness.workers import RETRIES, Here, OnRay, workers_of
from sava_assets.home.resources import Knobs, Workspace
from sava_assets.home.worker_knobs import WorkerKnobs
from sava_ops import BadInput


class Cluster:
    """What `OnRay` asks of Ray, with one worker that begins a piece when its result is asked for."""

    def __init__(self, cpus: int = 2, gpus: int = 0) -> None:
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.options: dict = {}
        self.resources = [{"Alive": True, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}]
        self.exceptions = SimpleNamespace(**{name: type(name, (Exception,), {}) for name in FAULTS})

    def nodes(self):
        return self.resources

    def put(self, shared):
        return shared

    def remote(self, **options):
        self.options = options
        return lambda _: SimpleNamespace(remote=self._submitted)

    def _submitted(self, call, held, item, _):
        self.begun.append(item)
        return SimpleNamespace(number=item, result=lambda: call(held[0], item))

    def get(self, piece):
        return "this processor", piece.result()

    def cancel(self, piece):
        self.cancelled.append(piece.number)


FAULTS = ("RayTaskError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")


@pytest.fixture
def cluster(monkeypatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(workers, "connected", lambda _: made)
    monkeypatch.setattr(workers, "_processor", lambda: "this processor")
    return made


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("device", "own"), [("cpu", 1), ("cuda", 3)])
def test_small_pieces_here_have_a_thread_each_and_large_ones_all(device, own):
    def threads(shared: int, item: int) -> tuple[int, int]:
        return shared + item, torch.get_num_threads()

    assert list(Here(device).map(threads, 10, range(5), beside_each_other=True)) == [(10 + k, own) for k in range(5)]
    assert list(Here(device).map(threads, 10, range(5))) == [(10 + k, 3) for k in range(5)]


def on_ray(device: str = "auto", **knobs) -> OnRay:
    return OnRay(WorkerKnobs(backend="ray", **knobs), device)


def counted(asked: list[int], count: int = 10):
    for number in range(count):
        asked.append(number)
        yield number


@pytest.mark.parametrize("who", [Here, on_ray])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 10])
def test_results_come_in_the_order_of_the_items(who, count, cluster):
    assert [*who().map(operator.add, 100, range(count))] == [100 + k for k in range(count)]
    assert cluster.cancelled == []


def test_here_an_item_is_asked_for_when_its_result_is():
    asked: list[int] = []
    made = Here().map(operator.mul, 2, counted(asked))
    assert asked == []
    assert next(made) == 0
    assert next(made) == 2
    assert asked == [0, 1]


@pytest.mark.parametrize(("ahead", "cpus", "most"), [(1, 1, 2), (2, 1, 4), (2, 2, 2), (3, 1, 6)])
def test_no_more_than_some_for_each_worker_are_under_way(ahead, cpus, most, cluster):
    asked: list[int] = []
    made = on_ray(ahead=ahead, cpus=cpus).map(operator.mul, 2, counted(asked))
    for done in range(5):
        assert next(made) == 2 * done
        assert len(asked) == min(most + done, 10)
    assert asked == cluster.begun
    assert cluster.options == {"num_cpus": cpus, "num_gpus": 0, "max_retries": RETRIES}


def refusing(limit: int, item: int) -> int:
    if item == limit:
        raise BadInput(f"{item} is too much")
    return item


@pytest.mark.parametrize("who", [Here, on_ray])
def test_what_an_item_raises_ends_it_and_stops_the_others(who, cluster):
    def items():
        yield from (0, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        [*who().map(operator.add, 0, items())]
    assert cluster.cancelled == cluster.begun


def test_what_a_call_raises_here_is_raised():
    made = Here().map(refusing, 1, range(5))
    assert next(made) == 0
    with pytest.raises(BadInput, match=r"^1 is too much$"):
        next(made)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, GeneratorExit])
def test_who_stops_asking_stops_what_is_under_way(stop, cluster):
    made = on_ray().map(operator.add, 0, range(10))
    assert next(made) == 0
    if stop is GeneratorExit:
        made.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            made.throw(KeyboardInterrupt)
    assert cluster.cancelled == [1, 2, 3]
    assert cluster.begun == [0, 1, 2, 3]


def test_ctrl_c_while_a_result_is_waited_for_stops_what_is_under_way(cluster, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(on_ray().map(operator.add, 0, range(10)))
    assert cluster.cancelled == [0, 1, 2, 3]


@pytest.mark.parametrize("fault", FAULTS[1:])
def test_a_piece_that_kills_its_workers_is_a_sentence(fault, cluster, monkeypatch):
    def killed(_):
        raise getattr(cluster.exceptions, fault)

    monkeypatch.setattr(cluster, "get", killed)
    with pytest.raises(
        BadInput, match=rf"^4 Ray workers died of the same piece of work \({fault}\): give them more mem"
    ):
        [*on_ray().map(operator.add, 0, range(10))]
    assert cluster.cancelled == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("have", "ask", "slots"),
    [
        ([{"CPU": 2.0}], {"cpus": 1}, 2),
        ([{"CPU": 5.0}, {"CPU": 3.0}], {"cpus": 2}, 3),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], {"cpus": 2, "gpus": 1}, 4),
        ([{"CPU": 4.0, "GPU": 4.0}], {"cpus": 2, "gpus": 1}, 2),
    ],
)
def test_a_worker_is_on_one_node(have, ask, slots, cluster):
    cluster.resources = [{"Alive": True, "Resources": own} for own in have]
    cluster.resources.append({"Alive": False, "Resources": {"CPU": 100.0, "GPU": 100.0}})
    asked: list[int] = []
    next(on_ray(ahead=1, **ask).map(operator.add, 0, counted(asked)))
    assert len(asked) == slots


@pytest.mark.parametrize("ask", [{"cpus": 4}, {"gpus": 1}])
def test_what_no_node_has_room_for_is_refused_and_not_waited_for(ask, cluster):
    cluster.resources *= 2
    with pytest.raises(
        BadInput, match=r"asks for . CPUs and . GPUs, and no node of the Ray cluster has more than 2 CPU"
    ):
        next(on_ray(**ask).map(operator.add, 0, range(10)))


def test_without_ray_it_is_a_sentence(monkeypatch):
    monkeypatch.setattr(workers, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        BadInput, match=r"^`workers.backend` is ray, which is not installed: install sava-assets\[ray\], "
    ):
        next(on_ray().map(operator.add, 0, range(10)))


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_an_address_where_nobody_listens_is_a_sentence(kind):
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.socket() as bound:  # and listens not
        bound.bind(("127.0.0.1", 0))
        address = f"{kind}127.0.0.1:{bound.getsockname()[1]}"
        sentence = (
            f"^no Ray cluster can be reached at `workers.address` '{address}' .Connection refused.: start one with"
        )
        with pytest.raises(BadInput, match=sentence):
            next(on_ray(address=address).map(operator.add, 0, range(10)))


def never() -> str:
    raise AssertionError("the device of this process is not asked for")


def test_the_device_is_that_of_who_computes():
    ray, gpu = WorkerKnobs(backend="ray"), WorkerKnobs(backend="ray", gpus=1)
    here = workers_of(WorkerKnobs(), "auto", lambda: "cuda:1")
    assert (here.device, here.given_on, here.unlike) == ("cuda:1", "cuda:1", True)
    here = workers_of(WorkerKnobs(gpus=1), "auto", lambda: "cpu")
    assert (here.device, here.given_on, here.unlike) == ("cpu", "cpu", False)
    for knobs, device, there in [(ray, "auto", "cpu"), (ray, "cpu", "cpu"), (gpu, "cpu", "cpu")]:
        made = workers_of(knobs, device, never)
        assert (made.device, made.given_on, made.unlike) == (there, "cpu", False)
    for device, there in [("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0")]:
        made = workers_of(gpu, device, never)
        assert (made.device, made.given_on, made.unlike) == (there, "cpu", True)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_for_workers_without_one_is_refused(device):
    with pytest.raises(BadInput, match=f"^`device` is '{device}' and `workers.gpus` is 0: set `workers.gpus` to 1, or"):
        on_ray(device)


@pytest.mark.parametrize(("device", "gpus"), [("cuda:1", 1), ("cuda:3", 2)])
def test_a_gpu_of_the_machine_is_none_of_a_workers_own(device, gpus):
    with pytest.raises(BadInput, match=f"^`device` is '{device}' and each worker sees {gpus} GPUs of its own"):
        on_ray(device, gpus=gpus)
    assert on_ray("cuda:1", gpus=2).device == "cuda:1"


@pytest.mark.parametrize("backend", ["here", "ray"])
def test_work_that_no_gpu_does_asks_for_none(backend, cluster):
    knobs = Knobs(device="cuda", workers=WorkerKnobs(backend=backend, gpus=1))
    pinned: Any = SimpleNamespace(knobs=knobs)
    run = Run("raw_images", "first", [], Workspace(home="home"), pinned, {}, None)
    assert [*run.processors.map(operator.add, 1, range(3))] == [1, 2, 3]
    assert run.processors.device == "cpu"
    assert cluster.options.get("num_gpus", 0) == 0


def test_what_another_processor_made_is_named_otherwise(cluster, monkeypatch):
    alike, unlike = on_ray(), on_ray()
    assert [*alike.map(operator.add, 0, range(2))] == [0, 1]
    assert not alike.unlike
    monkeypatch.setattr(cluster, "get", lambda piece: ("another processor", piece.result()))
    assert not unlike.unlike
    assert [*unlike.map(operator.add, 0, range(2))] == [0, 1]
    assert unlike.unlike
