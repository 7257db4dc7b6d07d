"""Rows of the batch matrix, as whoever works on them computes them: in the process of the run or in a worker."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from sava_assets.home.resources import Workspace
from sava_ops.calibration import Calibration
from sava_ops.config import ValuationConfig
from sava_ops.ot.cost import Points
from sava_ops.ot.labelled_kernel import Room
from sava_ops.transport import BatchRow, transport_row


@dataclass(frozen=True)
class Judges:
    """What all rows have in common."""

    reference_batches: Sequence[Points]
    starts: Sequence[Tensor]
    calibration: Calibration
    config: ValuationConfig
    device: str
    """What rows are computed on; see `Workers.device`."""
    held_out_of: Sequence[Tensor] | None = None
    """Places in each reference batch that may be held out; None for all."""

    @cached_property
    def own_device(self) -> str:
        """Of whoever asks."""
        return Workspace.checked_device(self.device)

    @cached_property
    def there(self) -> "Judges":
        """The same on that device, moved once."""
        return moved(self, self.own_device)

    @cached_property
    def room(self) -> Room:
        return Room()


def solved(judges: Judges, item: tuple[Points, int]) -> BatchRow:
    """The row of a training batch, on the CPU; the item says its number in its shard, too."""
    (batch, turn), own = item, judges.there
    batch = moved(batch, judges.own_device)
    row = transport_row(
        batch,
        own.reference_batches,
        own.starts,
        own.calibration,
        own.config,
        turn=turn,
        room=judges.room,
        held_out_of=own.held_out_of,
    )
    return moved(row, "cpu")


def moved(value: Any, device: str) -> Any:
    """The same with all tensors on the device; those that are there already are not copied."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(moved(each, device) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: moved(getattr(value, field.name), device) for field in fields(value)})
    return value
