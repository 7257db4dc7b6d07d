import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_assets.formats.names import (
    alike,
    class_name,
    in_markdown,
    is_utf8,
    misnamed,
    near_misses,
    partition_label,
    readable,
    shown,
    some,
)

REFERENCE = ["east", "north", "south", "west"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("east ", "east"),
        ("\teast\n", "east"),
        ("\ufeffeast\u200b", "east"),
        ("\u00a0east\u3000", "east"),
        ("cafe\u0301", "caf\u00e9"),
        ("hot  dog", "hot  dog"),
        (" \u200b", ""),
    ],
)
def test_class_names_are_stripped_and_composed(written, name):
    assert class_name(written) == name


@given(st.text())
def test_a_class_name_is_its_own_class_name(text):
    assert class_name(class_name(text)) == class_name(text) == class_name(f" {text}\n")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("East", "east"),
        ("01", "1"),
        ("7", "007"),
        ("3.0", "3"),
        ("hot_dog", "hot dog"),
        ("ｅast", "east"),
        ("ea\u200bst", "east"),
        ("so\u00adfa", "sofa"),
        ("\u2066cat\u2069s", "cats"),
    ],
)
def test_near_misses_are_found(name, known):
    assert near_misses([name, known, "other"], [known, "else"]) == {name: known}


def test_classes_of_other_words_and_known_ones_are_no_near_misses():
    assert near_misses(["eastern", "Polish", "polish", "-1", "10"], ["east", "Polish", "polish", "1", "100"]) == {}


def test_a_set_is_judged_where_it_shares_classes_that_are_written_alike():
    assert misnamed("the shard s", ["east", "up"], REFERENCE) == ""
    assert misnamed("the shard s", ["0", "1", "12"], ["0", "1", "2"]) == ""
    assert misnamed("the shard s", ["east", "7"], ["east", "3"]) == ""


@pytest.mark.parametrize(
    ("seen", "known", "message"),
    [
        (
            ["0", "1"],
            REFERENCE,
            "the shard s and the reference set have no class in common (the shard s: 0, 1, as if its class names were "
            "lost; reference: east, north, south, west): name the classes alike, or list them as `classes` in "
            "sava.yaml",
        ),
        (
            ["00", "01"],
            ["0", "1"],
            "the shard s and the reference set have no class in common (the shard s: 00, 01; reference: 0, 1; it "
            "writes '00' for '0', '01' for '1'): name the classes alike, or list them as `classes` in sava.yaml",
        ),
        (
            ["East", "north"],
            REFERENCE,
            "the shard s writes classes otherwise than the reference set ('East' for 'east'): name them alike",
        ),
        (
            ["east", "2"],
            REFERENCE,
            "the shard s has numbers beside names as classes (2) and the reference set has names only (east, north, "
            "south, west): name them alike",
        ),
    ],
)
def test_what_cannot_be_judged_is_said_in_a_sentence(seen, known, message):
    assert misnamed("the shard s", seen, known) == message


@pytest.mark.parametrize(
    ("name", "line"),
    [("caf\udce9.png", "caf\\xe9.png"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("猫 é", "猫 é")],
)
def test_names_are_shown_on_one_line_and_steer_no_terminal(name, line):
    assert shown(name) == line


@given(st.binary(min_size=1))
def test_any_file_name_becomes_text(data):
    name = data.decode("utf-8", "surrogateescape")
    assert readable(name).encode()
    assert is_utf8(name) == (readable(name) == name)


@pytest.mark.parametrize(
    ("folder", "label"),
    [("label=east", "east"), ("label=a%2Fb", "a/b"), ("label=__HIVE_DEFAULT_PARTITION__", ""), ("date=1", None)],
)
def test_hive_partition_folders_give_labels(folder, label):
    assert partition_label(folder) == label


def test_names_that_are_nearly_alike_are_grouped():
    assert alike(["East", "east", "1", "01", "001", "up"]) == [["001", "01", "1"], ["East", "east"]]


def test_long_lists_and_long_names_are_cut():
    assert some([str(k) for k in range(9)]) == "0, 1, 2, 3, 4, …"
    assert some(["x" * 500]) == "x" * 60 + "…"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("T-Shirt 3.5/x", "T-Shirt 3.5/x"),
        ("![x](http://elsewhere/x.png)", r"\!\[x\]\(http\://elsewhere/x.png\)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("a|b\n| c", r"a\|b\\n\| c"),
        ("a_b_c **d** `e` ~~f~~", r"a\_b\_c \*\*d\*\* \`e\` \~\~f\~\~"),
        ("someone@elsewhere &amp;", r"someone\@elsewhere \&amp;"),
        ("\x1b[2J", r"\\x1b\[2J"),
    ],
)
def test_a_name_in_markdown_is_nothing_but_a_name(name, written):
    assert in_markdown(name) == written
