"""Where the pieces of a large computation are worked on: in this process, or by the workers of a Ray cluster.

    for result in run.workers.map(call, shared, items): ...

`call(shared, item)` depends on nothing but its arguments, so the results are the same wherever it is called. They come
in order, and no more than `ahead` pieces for each worker are under way. The only file that imports Ray.
"""

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sava_assets.home.failures import in_words
from sava_assets.home.worker_knobs import WorkerKnobs
from sava_ops.errors import BadInput
from sava_ops.threads import in_threads

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Made = TypeVar("Made")

RETRIES = 3
"""Of a piece whose worker died."""
CONNECTION_SECONDS = 10


class Workers(Protocol):
    """Who works on the pieces of a run."""

    here: bool
    """Whether in this process, where what is shared is not copied."""
    device: str
    """What the pieces are computed on: a name for `Workspace.checked_device`, which the worker asks."""
    given_on: str
    """Where tensors that are handed to them lie."""

    @property
    def unlike(self) -> bool:
        """Whether they round otherwise than the processor of this process, as far as is known."""
        ...

    def map(
        self,
        call: Callable[[Shared, Item], Made],
        shared: Shared,
        items: Iterable[Item],
        *,
        beside_each_other: bool = False,
    ) -> Iterator[Made]:
        """The results of `call(shared, item)`, in the order of the items, which are asked for only as workers get
        free. What a call raises is raised here; what is under way then, or when the iterator is closed, is stopped.

        `beside_each_other`: pieces that hold little memory and are made of small operations; in this process, each
        gets one thread."""
        ...


def workers_of(knobs: WorkerKnobs, device: str, here_device: Callable[[], str]) -> Workers:
    """As `sava.yaml` says; `device` is its knob, `here_device` says what that is in this process."""
    return Here(here_device()) if knobs.backend == "here" else OnRay(knobs, device)


class Here:
    """In this process: one piece after the other, unless they are small and work on processors."""

    here = True

    def __init__(self, device: str = "cpu") -> None:
        self.device = self.given_on = device
        self.unlike = device != "cpu"

    def map(
        self,
        call: Callable[[Shared, Item], Made],
        shared: Shared,
        items: Iterable[Item],
        *,
        beside_each_other: bool = False,
    ) -> Iterator[Made]:
        apply = in_threads if beside_each_other and self.device == "cpu" else map
        yield from apply(partial(call, shared), items)


class OnRay:
    """By tasks of a Ray cluster. What is shared is put into the object store of each node once, and unpacked once by
    each worker; a piece whose worker died is given to another."""

    here, given_on = False, "cpu"

    def __init__(self, knobs: WorkerKnobs, device: str = "auto") -> None:
        if not knobs.gpus and device.startswith("cuda"):
            raise BadInput(
                f"`device` is {device!r} and `workers.gpus` is 0: set `workers.gpus` to 1, or `device` to auto"
            )
        if knobs.gpus and ":" in device and int(device.split(":")[1]) >= knobs.gpus:
            raise BadInput(
                f"`device` is {device!r} and each worker sees {knobs.gpus} GPUs of its own (`workers.gpus`), counted "
                "from 0: set `device` to cuda or auto"
            )
        self.knobs = knobs
        # Without a GPU of its own, a worker would take one that is another's.
        self.device = ("cuda" if device == "auto" else device) if knobs.gpus else "cpu"
        self._processors: set[str] = set()

    @property
    def unlike(self) -> bool:
        return self.device != "cpu" or bool(self._processors - {_processor()})

    def map(
        self,
        call: Callable[[Shared, Item], Made],
        shared: Shared,
        items: Iterable[Item],
        *,
        beside_each_other: bool = False,  # noqa: ARG002 (each has processors of its own)
    ) -> Iterator[Made]:
        ray, (cpus, gpus) = connected(self.knobs.address), (self.knobs.cpus, self.knobs.gpus)
        most = self.knobs.ahead * _slots(ray.nodes(), cpus, gpus)
        work = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(_worked)
        # In a list: Ray would unpack it anew for every piece.
        held, flying, items = [ray.put(shared)], deque(), iter(items)
        try:
            while True:
                flying.extend(work.remote(call, held, item, cpus) for item in islice(items, most - len(flying)))
                if not flying:
                    return
                processor, made = _fetched(ray, flying[0])
                flying.popleft()
                self._processors.add(processor)
                yield made
        finally:
            for piece in flying:
                ray.cancel(piece)


def connected(address: str) -> Any:
    """Ray, connected to a cluster: the one that this process belongs to already, or that of the address. Raises
    BadInput."""
    if find_spec("ray") is None:
        raise BadInput("`workers.backend` is ray, which is not installed: install sava-assets[ray], or set it to here")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here: it would phone home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns that this will be the default
    import ray

    if ray.is_initialized():
        return ray
    _refuse_deaf(address)
    own = {"_node_ip_address": "127.0.0.1", "include_dashboard": False} if address == "local" else {}
    interrupted = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from error
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray's own would end the process without a word
            signal.signal(signal.SIGTERM, interrupted)
    return ray


def _refuse_deaf(address: str) -> None:
    """Ray would try for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=CONNECTION_SECONDS).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> BadInput:
    return BadInput(
        f"no Ray cluster can be reached at `workers.address` {address!r} ({in_words(error)}): start one with `ray "
        "start --head`, or set it to local"
    )


def _slots(nodes: Sequence[dict[str, Any]], cpus: int, gpus: int) -> int:
    """How many workers the nodes have room for at once. Raises BadInput if none has."""
    have = [node["Resources"] for node in nodes if node["Alive"]]
    own = [min(int(has.get(kind, 0)) // each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each) for has in have]
    if not any(own):
        most = " and ".join(
            f"{max((int(has.get(kind, 0)) for has in have), default=0)} {kind}s" for kind in ("CPU", "GPU")
        )
        raise BadInput(
            f"a worker asks for {cpus} CPUs and {gpus} GPUs, and no node of the Ray cluster has more than {most}: "
            "lower `workers.cpus` or `workers.gpus`, or add nodes"
        )
    return sum(own)


def _fetched(ray: Any, piece: Any) -> tuple[str, Any]:
    """The processor it was made on, and the result; raises what the call raised, as itself."""
    try:
        return ray.get(piece)
    except ray.exceptions.RayTaskError as error:
        failed = error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        raise BadInput(
            f"{1 + RETRIES} Ray workers died of the same piece of work ({type(error).__name__}): give them more memory "
            "or CPUs, or look into Ray's logs"
        ) from error
    # Outside of the handler, or it would be told as a consequence of Ray's.
    cause = failed.cause
    cause.add_note(f"in a Ray worker:\n{failed}")
    raise cause


_unpacked: dict[str, Any] = {}
"""In a worker: what is shared by the pieces that it works on, unpacked."""


def _worked(call: Callable[[Any, Any], Any], held: list[Any], item: Any, cpus: int) -> tuple[str, Any]:
    """In a worker: its processor, and the result of one piece."""
    import ray
    import torch

    torch.set_num_threads(cpus)
    (shared,) = held
    if shared.hex() not in _unpacked:
        _unpacked.clear()
        _unpacked[shared.hex()] = ray.get(shared)
    return _processor(), call(_unpacked[shared.hex()], item)


def _processor() -> str:
    """What numbers are rounded by: the model decides which instructions libraries use, and in what blocks."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line for line in lines if line.startswith("model name")), "")
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
