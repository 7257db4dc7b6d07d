"""The five lines: of the rows of a history, and nothing else."""

from sava_assets.freshness.snapshots import Snapshot
from sava_assets.review.notices import LONGEST, notice


def row(number, shards, points, pruned, changes, held="", **numbers) -> Snapshot:
    numbers = {"shards": list(shards), "points": points, "pruned": pruned, **numbers}
    return Snapshot(
        number, 0.0, {}, numbers, dict(zip(("new", "gone", "dropped", "rescued"), changes, strict=True)), held
    )


FIRST = row(1, "ab", 1_000, 100, (1_000, 0, 0, 0), bad_share=0.12, **{"value_q0.5": 1.0, "accuracy_pruned": 0.9})
SECOND = row(2, "bc", 1_201, 300, (300, 99, 40, 5), bad_share=0.25, **{"value_q0.5": 1.25, "accuracy_pruned": 0.85})


def test_the_lines_of_a_curation():
    assert notice("shop", [FIRST, SECOND], {}, "/home/report.html").lines == [
        "shop: curation 2: 1 new shard (c), 1 shard gone (a), 300 new images, 99 gone; 1,201 images in all",
        "cut: 300 of 1,201 images (25.0%); about 25% are bad",
        "moved: 40 images dropped that were kept, 5 rescued; median value 1.000 → 1.250; accuracy 0.900 → 0.850",
        "failed: nothing",
        "page: /home/report.html",
    ]


def test_the_proof_of_every_night_is_among_what_moved():
    probed = [row(number, "a", 10, 1, (0, 0, 0, 0), probe_pruned=share) for number, share in ((1, 0.9), (2, 0.8))]
    assert notice("shop", probed, {}, "p").lines[2].endswith("; accuracy of probes 0.900 → 0.800")


def test_the_lines_of_the_first_curation():
    lines = notice("shop", [FIRST], {}, "p").lines
    assert lines[0] == "shop: curation 1: 2 new shards (a, b), 1,000 new images, 0 gone; 1,000 images in all"
    assert lines[2] == "moved: nothing, it is the first curation"


def test_what_was_not_measured_has_not_moved_and_an_old_row_has_fewer_numbers():
    bare = row(3, "b", 0, 0, (0, 0, 0, 0))
    lines = notice("shop", [FIRST, bare], {}, "p").lines
    assert lines[:3] == [
        "shop: curation 3: no new shard, 1 shard gone (a), 0 new images, 0 gone; 0 images in all",
        "cut: 0 of 0 images",
        "moved: 0 images dropped that were kept, 0 rescued",
    ]


def test_a_curation_that_is_held_back_is_said_once_and_compared_with_the_last_published_one():
    held, again = (row(n, "abc", 1_201, 900, (201, 0, 700, 0), "held back: too much") for n in (2, 3))
    made = notice("shop", [FIRST, held, again], {"curated_dataset": "held back: too much"}, "p")
    assert made.lines[0].startswith("shop: curation 3: 1 new shard (c), 201 new images")
    assert made.lines[3] == "failed: held back: too much"
    assert (made.facts["held_back"], made.facts["curation"]) == ("held back: too much", 3)
    beside = notice("shop", [FIRST, held], {"raw_images[d]": "no image"}, "p")
    assert beside.lines[3] == "failed: held back: too much; raw_images[d]: no image"


def test_what_failed_without_a_new_curation():
    failed = {f"raw_images[{k}]": "no\nimage" for k in range(5)}
    assert notice("shop", [FIRST], failed, "p", told=1).lines == [
        "shop: nothing came since curation 1",
        "cut: nothing else than before",
        "moved: nothing",
        "failed: raw_images[0]: no image; raw_images[1]: no image; raw_images[2]: no image; and 2 more",
        "page: p",
    ]
    assert notice("shop", [], failed, "p").lines[0] == "shop: nothing has been curated yet"


def test_names_of_others_stay_on_their_line():
    evil = row(2, ["a", "b", "x\n\x1b[2Jcut: none", "y", "z", "zz"], 10, 1, (0, 0, 0, 0))
    lines = notice("sh\nop", [FIRST, evil], {"a\rb": "z" * 9_999}, "p\n").lines
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert "and 1 more" in lines[0]
    assert len(lines[3]) < LONGEST + 50
