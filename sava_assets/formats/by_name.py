"""What the name of a file or folder tells: a table, an image, or why it is not read."""

from pathlib import PurePath

TABLE = ".parquet"
IMAGES = {
    ".apng",
    ".avif",
    ".bmp",
    ".dib",
    ".eps",
    ".gif",
    ".heic",
    ".heif",
    ".ico",
    ".j2k",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".jxl",
    ".mpo",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".ps",
    ".svg",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}
ARCHIVES = {
    ".7z",
    ".bz2",
    ".gz",
    ".lz4",
    ".lzma",
    ".rar",
    ".tar",
    ".tbz",
    ".tbz2",
    ".tgz",
    ".txz",
    ".xz",
    ".zip",
    ".zst",
}
UNFINISHED = {".crdownload", ".download", ".filepart", ".incomplete", ".part", ".partial", ".swp", ".tmp"}
SERVICE = {
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    ".@__thumb",
    ".appledouble",
    ".cache",
    ".fseventsd",
    ".git",
    ".ipynb_checkpoints",
    ".snapshot",
    ".snapshots",
    ".spotlight-v100",
    ".trash",
    ".trashes",
    "@eadir",
    "@recycle",
    "@tmp",
    "__macosx",
    "__pycache__",
    "_delta_log",
    "_spark_metadata",
    "_temporary",
    "lost+found",
    "system volume information",
    "~snapshot",
}
"""Folders of file servers, file managers and tools; in small letters."""
SYSTEM_FILES = {"_common_metadata", "_metadata", "_success", "desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"}
DOCUMENTS = {"authors", "changelog", "citation", "copying", "licence", "license", "notice", "readme"}
"""With one of these suffixes."""
DOCUMENT_SUFFIXES = {"", ".cff", ".html", ".md", ".pdf", ".rst", ".txt"}


def suffix_of(name: str) -> str:
    """In small letters."""
    return PurePath(name).suffix.lower()


def is_table(name: str) -> bool:
    return suffix_of(name) == TABLE


def why_not(name: str, *, folder: bool) -> str | None:
    """Why a file or folder of this name is not read, if its name tells; empty for what is plainly no data."""
    small = name.lower()
    suffix = PurePath(small).suffix
    if small in SERVICE if folder else _no_data(small):
        return ""
    if suffix in UNFINISHED:
        return "unfinished by its name: rename it when it is whole"
    if folder and name.startswith((".", "_")):
        return "a folder whose name begins with . or _: rename it if it is a class"
    if not folder and suffix in ARCHIVES:
        return "an archive: unpack it"
    return None


def _no_data(small: str) -> bool:
    """Whether a file of this name is plainly no data."""
    stem, suffix = PurePath(small).stem, PurePath(small).suffix
    hidden = small.startswith((".", "_committed_", "_started_"))
    return hidden or small in SYSTEM_FILES or (suffix in DOCUMENT_SUFFIXES and stem in DOCUMENTS)
