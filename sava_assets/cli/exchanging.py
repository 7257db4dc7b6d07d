"""`sava export` and `sava import`: flagged images to the tools that people decide with, and their decisions back."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sava_ops.errors import BadInput

if TYPE_CHECKING:
    from sava_assets.home.resources import Workspace


class Tool(StrEnum):
    """Whose format."""

    LABEL_STUDIO = "label-studio"
    FIFTYONE = "fiftyone"
    CLEANLAB = "cleanlab"


def exported(
    workspace: "Workspace", tool: Tool, target: Path, *, everything: bool, images_at: str | None
) -> Iterator[str]:
    """Write what a tool reads; yields what is to be said."""
    from sava_assets.exchange import cleanlab, fiftyone, label_studio
    from sava_assets.exchange.outgoing import outgoing
    from sava_assets.formats.names import counted

    if images_at is not None and tool is not Tool.LABEL_STUDIO:
        raise BadInput(f"--images-at is of label-studio alone: leave it out for {tool}")
    found = outgoing(workspace, everything=everything)
    if not len(found.points):
        raise BadInput("no image is flagged and none decided on: add --all to export all that have a value")
    if tool is Tool.LABEL_STUDIO:
        count = label_studio.write_tasks(found, target, images_at=images_at)
        yield f"{count:,} tasks in {target / 'tasks.json'}; the labeling interface is {target / 'labels.xml'}"
        if images_at is None:
            yield (
                "for their images start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
                f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={target.absolute().parent}"
            )
    elif tool is Tool.FIFTYONE:
        samples = counted(fiftyone.write_dataset(found, target), "sample")
        yield f"{samples} in {target}: fo.Dataset.from_dir({str(target)!r}, fo.types.LegacyFiftyOneDataset)"
    else:
        yield f"{counted(cleanlab.write_table(found, target), 'row')} in {target}"


def imported(workspace: "Workspace", tool: Tool, source: Path, *, who: str | None) -> Iterator[str]:
    """Take decisions into the home; yields what is to be said."""
    from sava_assets.exchange import cleanlab, fiftyone, label_studio
    from sava_assets.exchange.incoming import take_in
    from sava_assets.formats.decision_files import SOMEBODY
    from sava_assets.home.failures import in_words

    by = who or SOMEBODY
    try:
        when = datetime.fromtimestamp(source.stat().st_mtime, UTC)
        if tool is Tool.LABEL_STUDIO:
            found = label_studio.read_annotations(source, who=by)
        elif tool is Tool.FIFTYONE:
            found = fiftyone.read_dataset(source, who=by, when=when)
        else:
            found = cleanlab.read_table(source, who=by, when=when)
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({in_words(error)}): name what {tool} exported") from error
    yield from take_in(workspace, str(tool), found, who=by, when=when)
