"""Settings of who does the work inside a large computation; see `sava_assets.freshness.workers`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from sava_assets.home.outgoing import STRICT


def _known_address(address: str) -> str:
    if not re.fullmatch(r"auto|local|(ray://)?[^\s:/]+:\d+", address):
        raise ValueError(f"{address!r} is no address of a Ray cluster: it must be 'auto', 'local' or 'host:port'")
    return address


class WorkerKnobs(BaseModel):
    """Who computes the rows of the batch matrix, the embeddings and the trainings.

    They name no result: results are the same whoever computes them.
    """

    model_config = STRICT
    backend: Literal["here", "ray"] = "here"
    """In the process of the run, or by workers of a Ray cluster."""
    address: Annotated[str, AfterValidator(_known_address)] = "auto"
    """"auto" (the cluster of this machine, or that of RAY_ADDRESS), "local" (one is started for the run), or that of a
    cluster, as `host:port`."""
    cpus: Annotated[int, Field(ge=1, strict=True)] = 1
    """Of a worker, which has as many threads."""
    gpus: Annotated[int, Field(ge=0, strict=True)] = 0
    """Of a worker, which sees no others; without one it computes on the processor."""
    ahead: Annotated[int, Field(ge=1, strict=True)] = 2
    """Pieces of work under way at once, for each worker that the cluster has room for."""
