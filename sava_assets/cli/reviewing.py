"""`sava report` and `sava review`: the page of the last curation, and what people have decided."""

from collections.abc import Iterator

from upath import UPath

from sava_assets.formats.decision_files import read_decisions
from sava_assets.formats.names import counted, some
from sava_assets.freshness.sources import Home
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result
from sava_assets.review.verdicts import resolved
from sava_ops.errors import BadInput


def current_report(workspace: Workspace) -> Result:
    """What the page shows; raises BadInput where nothing has been curated, or the page is older than the curation."""
    result, pruned = (workspace.store.current(name) for name in ("curation_report", "pruned_dataset"))
    if result is None or pruned is None or result.inputs["pruned_dataset"] != {"": pruned.data_version}:
        raise BadInput(f"the page of {workspace.home} is due: run `sava curate` first")
    return result


def page_in_home(workspace: Workspace) -> UPath:
    """Write the page of the last curation, as it is to be now, and say where; raises BadInput where there is none."""
    from sava_assets.assets.report import write_page

    return write_page(workspace, current_report(workspace))


def reported(workspace: Workspace) -> Iterator[str]:
    """Write the page; yields what is to be said."""
    from sava_assets.assets.report import write_page
    from sava_assets.review.shown import in_words

    result = current_report(workspace)
    yield f"{write_page(workspace, result)}"
    yield f"{counted(result.numbers['flagged'], 'image')} flagged"
    yield in_words(result.numbers)
    yield from decided(workspace)


def decided(home: Home) -> Iterator[str]:
    """What people have decided so far, with its contradictions; nothing where they have not."""
    try:
        verdicts = resolved(read_decisions(home.folder(home.knobs.decisions)))
    except BadInput as fault:  # pruned_dataset fails for this reason; who only looks is told
        yield f"decisions: {fault}"
        return
    if not verdicts.standing:
        return
    who = {decision.who for decision in verdicts.standing.values()}
    pruned = home.store.current("pruned_dataset")
    elsewhere = pruned.numbers.get("decisions_not_in_pool", 0) if pruned else 0
    away = f"; {elsewhere:,} of them were not in the pool of the last curation" if elsewhere else ""
    yield f"decisions: on {counted(len(verdicts.standing), 'image')} by {some(who)}{away}"
    if verdicts.contradicted:
        images = counted(verdicts.contradicted, "image")
        yield f"contradictions: {images} decided in more than one way, the latest holds"
        yield from (f"  {example}" for example in verdicts.examples())


def serve_review(workspace: Workspace, port: int) -> Iterator[str]:
    """Serve the page until Ctrl-C; yields what is to be said."""
    from sava_assets.assets.report import page_of
    from sava_assets.review.served import ReviewServer, save_decisions

    folder = workspace.folder(workspace.knobs.decisions)
    current_report(workspace)
    try:
        server = ReviewServer(
            port,
            lambda: page_of(workspace, current_report(workspace), served=True),
            lambda body: save_decisions(folder, body),
        )
    except OSError as error:
        raise BadInput(f"port {port} cannot be used ({error.strerror}): choose another --port, or 0 for any") from error
    with server:
        yield f"review at {server.address}"
        yield f"decisions go to {folder}; Ctrl-C ends it"
        server.serve_forever()
