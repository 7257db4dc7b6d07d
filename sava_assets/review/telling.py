"""When people are told: once of every row of the history, and once of everything that fails."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from sava_assets.freshness.snapshots import snapshots
from sava_assets.freshness.sources import Home
from sava_assets.freshness.survey import State
from sava_assets.home.failures import in_words
from sava_assets.home.ownership import owned
from sava_assets.home.resources import Workspace
from sava_assets.review.notices import notice
from sava_assets.review.page import PAGE
from sava_assets.review.sending import CHANNELS

LAST = "notices/last.json"


def tell(workspace: Workspace, failed: Mapping[str, str]) -> list[str]:
    """Send a notice of what people have not been told yet, if there is something; returns why it could not be sent. It
    is sent again when this is asked the next time, until it arrives. `failed`: what → why."""
    knobs, store = workspace.knobs.notify, workspace.store
    wanted = [channel for channel in CHANNELS if getattr(knobs, channel) is not None]
    if not wanted:
        return []
    with owned(workspace.root, "notices"):
        rows, last = snapshots(store), store.read_json(LAST) or {}
        row = [rows[-1].number, rows[-1].held_back] if rows else None
        news = {"row": row, "failed": sorted(failed)}
        told, faults = dict(last.get("told", {})), {}
        for channel in wanted:
            known = told.get(channel, {"row": None, "failed": []})
            if news == known:
                continue
            seen = rows[-1].number if rows and known["row"] == row else 0
            made = notice(_name(workspace), rows, failed, str(workspace.root / PAGE), told=seen)
            if fault := CHANNELS[channel](made, knobs):
                faults[channel] = fault
            else:
                told[channel] = news
        try:
            if (now := {"told": told, "faults": faults}) != last:
                store.put_json(LAST, now)
        except OSError as error:
            faults["note"] = f"that a notice was sent could not be noted ({in_words(error)}): it may come twice"
    return list(faults.values())


def untold(home: Home) -> list[str]:
    """Why the last notice could not be sent; nothing if it was."""
    faults = (home.store.read_json(LAST) or {}).get("faults", {})
    return [fault for channel, fault in faults.items() if getattr(home.knobs.notify, channel) is not None]


def failures(states: Iterable[State]) -> dict[str, str]:
    """What failed or is held back, and why."""
    return {state.title: state.reason for state in states if state.status in ("failed", "withheld")}


def _name(workspace: Workspace) -> str:
    return workspace.home if "://" in workspace.home else Path(workspace.home).absolute().name
