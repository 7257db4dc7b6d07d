"""The page of a curation as one HTML file: it opens from disk, asks no network, and shows 20,000 images.

Whatever comes from data is JSON that the page's script writes as text; nothing of it is ever read as HTML. The policy
in its head lets that one script run, by its hash, and nothing else.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sava_assets.formats.decision_files import COLUMNS

CHUNK = 200
"""Thumbnails in one block of text, which is taken apart when the first of them is looked at."""
SIGNIFICANT = 4
PAGE = "report.html"
"""In the home: the page of the last curation."""
TEXTS = ("id", "pixel_hash", "reason", "decided_by")
CODED = ("label", "suggested_label", "curated_label", "algorithm_label", "shard", "action", "algorithm_action")
"""Columns of which the page holds each word once."""
NUMBERS = ("p_value", "evidence", "confidence")
_HERE = Path(__file__).parent


def page(shown: pa.Table, references: pa.Table, told: Mapping[str, Any], news: Sequence[str], *, served: bool) -> bytes:
    """The whole page. `told` is what it says of the curation; `served`: saving asks the server that sent it."""
    script, style = ((_HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    asked = "'self'" if served else "'none'"
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        f"connect-src {asked}; base-uri 'none'; form-action 'none'"
    )
    data = {**told, "columns": COLUMNS, "served": served, "shown": _columns(shown, news), "chunk": CHUNK}
    data["references"] = {name: references[name].to_pylist() for name in ("id", "label")}
    filled = {
        "policy": policy,
        "style": style,
        "script": script,
        "data": _inert(data),
        "pictures": "\n".join(_blocks("shown", shown["thumbnail"])),
        "reference-pictures": "\n".join(_blocks("reference", references["thumbnail"])),
    }
    text = (_HERE / "page.html").read_text(encoding="utf-8")
    first, *rest = text.split("<!--{")
    return "".join([first, *(_filled(part, filled) for part in rest)]).encode()


def _hash(text: str) -> str:
    """How a content security policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _filled(part: str, filled: Mapping[str, str]) -> str:
    name, after = part.split("}-->", 1)
    return filled[name] + after


def _inert(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _columns(shown: pa.Table, news: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: shown[name].to_pylist() for name in (*TEXTS, "sample")}
    for name in CODED:
        coded = shown[name].combine_chunks().dictionary_encode()
        found[name] = {"words": coded.dictionary.to_pylist(), "codes": coded.indices.to_pylist()}
    found |= {n: [float(f"{v:.{SIGNIFICANT}g}") for v in shown[n].to_pylist()] for n in NUMBERS}
    found |= {name: shown[name].to_pylist() for name in ("nearest_of_label", "nearest_of_suggested_label")}
    return found | {"news": list(news)}


def _blocks(name: str, pictures: pa.ChunkedArray) -> Iterator[str]:
    for start in range(0, len(pictures), CHUNK):
        encoded = [base64.b64encode(data).decode() for data in pictures.slice(start, CHUNK).to_pylist()]
        yield f'<script type="text/plain" id="{name}-{start // CHUNK}">{",".join(encoded)}</script>'
