"""Where a home stands, and what its curations were: `sava status` and `sava history`. They only look."""

from datetime import datetime

from rich.console import Console
from rich.table import Table

from sava_assets.cli.accounts import say_accounts
from sava_assets.cli.outcome import console, no_test_set, say
from sava_assets.cli.preparation import unlimited
from sava_assets.cli.reviewing import decided
from sava_assets.freshness.drift import calibration_drift
from sava_assets.freshness.proof import ACCURACIES
from sava_assets.freshness.snapshots import snapshots
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.review.telling import untold

HISTORY_WIDTH = 110


def say_status(workspace: Workspace) -> None:
    """What is not fresh and why, and what else is to be known."""
    states = list((survey := Survey.landed(workspace)).all())
    for state in states:
        if state.status != "fresh":
            say(f"{state.status:<8} {state.title}: {state.reason}")
    say_accounts(survey, console, quarantine=False)
    for line in (*decided(survey.home), *untold(survey.home), *filter(None, [unlimited()])):
        say(line)
    fresh, held = (sum(state.status == kind for state in states) for kind in ("fresh", "held"))
    say(f"{fresh:,} of {len(states) - held:,} results are fresh")
    if unproven := no_test_set(survey.home):
        say(unproven)
    if drift := calibration_drift(survey.home, survey.shards):
        say(drift)


def say_history(workspace: Workspace) -> None:
    """A line for every curation."""
    table = Table(box=None)
    for column in ("", "when", "shards", "points", "pruned", "new", "gone", "dropped", "rescued", "probe", "trained"):
        table.add_column(column, justify="right", no_wrap=True)
    for past in (known := snapshots(workspace.store)):
        numbers, changes = past.numbers, past.changes
        when = datetime.fromtimestamp(past.time).strftime("%Y-%m-%d %H:%M")
        counts = [len(numbers["shards"]), numbers["points"], numbers["pruned"]]
        counts += [changes[name] for name in ("new", "gone", "dropped", "rescued")]
        accuracies = [
            f"{numbers[f'{called}_all']:.3f} → {numbers[f'{called}_pruned']:.3f}"
            if f"{called}_all" in numbers
            else "none"
            for called in ACCURACIES.values()
        ]
        table.add_row(str(past.number), when, *(f"{count:,}" for count in counts), *accuracies)
    # In a narrow terminal, or a pipe, better whole lines than cells cut short.
    Console(width=max(console.width, HISTORY_WIDTH)).print(table)
    say("probe, trained: test accuracy on all images → on the kept ones, by linear probes and by whole networks")
    for past in known:
        if past.held_back:
            say(f"{past.number}: {past.held_back}")
