"""Where things lie: in folders of this machine, or on an object store. Object stores are opened here alone.

What goes wrong there is one sentence: the driver, the credentials, the bucket, the endpoint.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath

from upath import UPath

from sava_ops.errors import BadInput

LOCAL = ("", "file", "local")
"""Protocols of this machine's own file system."""
S3 = ("s3", "s3a")
S3_EXTRA = "pip install 'sava-assets[s3]'"
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"),
}
NO_ENDPOINT = {
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "SSLError"),
    *("ProxyConnectionError", "HTTPClientError"),
}
"""Names of botocore's errors, which nobody imports who has no object store."""
WRONG_CREDENTIALS = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed"),
    *("InvalidClientTokenId", "TokenRefreshRequired", "AuthFailure"),
}
FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "403"}
TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
"""How object stores refuse a create-only put."""


LONGEST_SHOWN = 200
"""Letters of a path, or of what else somebody wrote, in a sentence."""
UNSEEN = (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP)
"""Of a path at which nobody can look."""


def is_address(name: str) -> bool:
    """Whether a name is one of another place than this machine's file system."""
    return "://" in name


def refuse_unseen(path: Path) -> None:
    """Raise BadInput for a path of this machine of which its file system will not say whether something is there: a
    name that is too long, a folder into which nobody may look, links in a circle."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno not in UNSEEN:  # a disk or a server that fails: no other path would help
            raise
        fault = f"{shortened(str(path))} cannot be looked at ({error.strerror})"
        raise BadInput(f"{fault}: allow it, or name another place") from error


def shortened(text: str) -> str:
    """What somebody wrote, as a sentence can hold it."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def is_local(path: UPath) -> bool:
    return path.protocol in LOCAL


def opened(address: str) -> UPath:
    """A place by its address (`s3://bucket/folder`). Raises BadInput for a protocol that is not known, or without its
    driver.

    Without fsspec's cache of listings, which never expires: what others put there must be seen.
    """
    try:
        place = UPath(address, use_listings_cache=False)
        _ = place.fs
    except (ValueError, ImportError) as error:
        if address.split("://")[0] in S3 and isinstance(error, ImportError):
            raise BadInput(f"{address} is on an object store, and s3fs is not installed: {S3_EXTRA}") from error
        raise BadInput(f"{address} cannot be read ({error}): name a folder or file") from error
    return place


def content(path: UPath) -> bytes:
    """Of a small file, in one request. Raises FileNotFoundError, and BadInput where its place cannot be reached."""
    if is_local(path):
        return path.read_bytes()
    with in_reach(path):
        # A driver that reads large files in several requests at once asks for the size first.
        at_once = {"max_concurrency": 1} if path.protocol in S3 else {}
        return path.fs.cat_file(path.path, **at_once)  # pyright: ignore[reportReturnType]


def put_object(path: UPath, file: Path, *, new: bool = False) -> None:
    """Write a file on an object store; it appears in one step. A `new` one replaces nothing: raises FileExistsError."""
    with in_reach(path):
        try:
            path.fs.put_file(str(file), path.path, mode="create" if new else "overwrite")
        except OSError as error:
            if new and _code(error) in TAKEN:
                raise FileExistsError(f"{path} is there already") from error
            raise


def remove(path: UPath) -> None:
    """Delete a file, if it is there."""
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError), in_reach(path):
        path.fs.rm_file(path.path)


def refuse_out_of_reach(place: UPath) -> None:
    """Raise BadInput for a place on an object store that cannot be reached; one request."""
    if not is_local(place):
        with suppress(FileNotFoundError):
            content(place / "reached")


@contextmanager
def in_reach(place: UPath) -> Iterator[None]:
    """What is asked of an object store; raises BadInput, with the place, if it cannot be reached."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if told := unreachable(error):
            raise BadInput(f"{place}: {told}") from error
        raise


def unreachable(error: BaseException) -> str:
    """What is wrong with an object store, and what to do; empty for an error of anything else."""
    for cause in causes(error):
        name, message = type(cause).__name__, " ".join(str(cause).split())
        if isinstance(cause, ValueError) and message.startswith("Invalid endpoint"):
            return f"the object store cannot be reached ({message}): correct AWS_ENDPOINT_URL"
        if not isinstance(cause, Exception) or type(cause).__module__.split(".")[0] != "botocore":
            continue
        if name in NO_CREDENTIALS:
            return f"there are no credentials for the object store ({message}): set {KEYS}"
        if name in NO_ENDPOINT:
            return f"the object store cannot be reached ({message}): check AWS_ENDPOINT_URL, and whether it runs"
        code = _code(cause)
        if code == "NoSuchBucket":
            return "the bucket does not exist: create it, or correct the address"
        if code in WRONG_CREDENTIALS:
            return f"the object store refuses the credentials ({message}): correct {KEYS}"
        if code in FORBIDDEN:
            return (
                f"the object store does not allow it ({message}): get the rights to list, read, write and delete there"
            )
    return ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


def as_pure(place: UPath) -> PurePath:
    """By which it can be told whether one place lies in another."""
    if is_local(place):
        return Path(place.path).resolve()
    return PurePosixPath(f"{place.protocol}:", place.path.strip("/"))


def _code(error: BaseException) -> str:
    """What an object store calls what went wrong; empty if it is not the store that says so."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""
