"""
Download a public checkpoint or data set from the Hugging Face hub, or one file from any address.

    python -m data.formats.fetch owner/model --out base
    python -m data.formats.fetch owner/set --dataset --out dialogues
    python -m data.formats.fetch https://host/file.jsonl --out dialogues --sha256 HEX

HF_TOKEN opens gated repositories, HF_ENDPOINT names another hub. An interrupted download resumes.
Nothing from the network is trusted: a file must lie inside --out and must have the size and the
hash that the hub names. Nothing downloaded is run or unpickled here.
"""

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import time
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.exceptions import ChunkedEncodingError
# requests is built on urllib3; while a body is read, urllib3's own errors come through
from urllib3.exceptions import HTTPError

from data.api.budget import is_loopback
from data.api.protocol import RetryableError, retry_after
from data.api.refusals import is_transient
from data.program import UserError, format_seconds, run

HUB = "https://huggingface.co"
# failed tries in a row before giving up
TRIES = 6
# seconds to connect, and between two pieces of a reply
TIMEOUT = (10, 60)
# seconds from one line of progress to the next
EVERY = 5
# bytes that are read at a time
PIECE = 1 << 20

ALWAYS = ["config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json",
          "special_tokens_map.json", "adapter_config.json", "adapter_model.*"]
# many models have the same weights in several formats: only the first of these is taken
WEIGHTS = [["model*.safetensors*"], ["*.safetensors*"], ["pytorch_model*.bin*"],
           ["params.json", "consolidated.*.pth"]]
DIALOGUES = ["*.json", "*.jsonl", "*.json.gz", "*.jsonl.gz"]


class File(NamedTuple):
    """A file to download, as the hub or the server describes it."""
    name: str
    url: str
    size: int | None    # in bytes; None: unknown
    hash: str           # sha256, or git's sha1 (of small files), in hex; "": unknown


# ------------------------------------------------------------------------------------------------
# which files to take, and where they may be written


def matching(names, globs):
    """List the names that match one of the globs; * matches a slash, too."""
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def select_names(names, dataset, globs):
    """List the names to take: matches of the globs, or else what a model or data set needs."""
    if globs or dataset:
        return matching(names, globs or DIALOGUES)
    top = [name for name in names if "/" not in name]
    always = matching(top, ALWAYS)
    others = [name for name in top if name not in always]
    for globs in WEIGHTS:
        weights = matching(others, globs)
        if weights:
            return always + weights
    return always


def safe_path(out, name):
    """Return OUT/name for a name from the network; UserError unless it lies inside `out`."""
    pure = PurePosixPath(name)
    unsafe = (str(pure) != name or not pure.parts or ".." in pure.parts or "\\" in name
              or PureWindowsPath(name).anchor or not name.isprintable() or name.endswith(".part"))
    path = Path(out, name)
    if not unsafe:
        # an existing link may lead anywhere
        root = os.path.realpath(out)
        targets = [Path(os.path.realpath(target)) for target in (path, part_path(path))]
        unsafe = not all(target.is_relative_to(root) for target in targets)
    if unsafe:
        raise UserError(f"{name[:200]!r} is no name for a file inside {out}; nothing was written")
    return path


def part_path(path):
    """Return the path of an incomplete download: PATH.part."""
    return Path(f"{path}.part")


def size_of(path):
    """Return the size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def hash_like(path, expected):
    """Hash a file, in hex: as git does if `expected` has the length of git's hash, else sha256."""
    if len(expected) == 40:
        digest = hashlib.sha1(b"blob %d\0" % size_of(path))
    else:
        digest = hashlib.sha256()
    with open(path, "rb") as data:
        while piece := data.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def is_complete(file, path):
    """Tell whether the file is on disk already, with the right size and hash."""
    if not file.hash or not path.is_file() or size_of(path) != file.size:
        return False
    return hash_like(path, file.hash) == file.hash


def printable(text):
    """Return a text from the network as one line without control characters, for a terminal."""
    return "".join(letter for letter in str(text) if letter.isprintable())[:200]


# ------------------------------------------------------------------------------------------------
# HTTP: plain requests; transient errors are retried


def make_session(home, token):
    """Make a session with the server of a URL; the token goes to this server alone."""
    session = requests.Session()
    # this machine is reached without a proxy
    session.trust_env = not is_loopback(home)
    # with an auth of its own, requests does not put a password of netrc in our token's place
    session.auth = lambda request: request
    if "@" in urlsplit(home).netloc:
        raise UserError("a password has no place in an address; a token belongs in HF_TOKEN")
    # uncompressed, since a download resumes at a byte of the file as it is stored
    session.headers["Accept-Encoding"] = "identity"
    if not token.isascii() or len(token.split()) > 1:
        raise UserError("HF_TOKEN is no token: it holds spaces, or letters that no header can")
    if token:
        # requests drops this header when a redirect leads to another host
        session.headers["Authorization"] = f"Bearer {token.strip()}"
    return session


def raise_for_status(reply, name):
    """Raise what an HTTP status means: UserError, RetryableError, or nothing if there is a body."""
    status = reply.status_code
    if status in (401, 403):
        raise UserError(f"{name}: nothing of that name is public (HTTP {status}); if it is gated, "
                        "accept its conditions on the hub's page and set HF_TOKEN")
    if status == 404:
        raise UserError(f"{name}: there is nothing of that name, or it is private (HTTP 404)")
    if is_transient(status):
        raise RetryableError(f"HTTP {status}", retry_after(reply.headers))
    if status not in (200, 206, 416):
        raise UserError(f"{name}: the server answers HTTP {status}")


@contextmanager
def open_url(session, url, name, start=0):
    """
    Request a URL from byte `start` on, and yield the open reply.

    Raises RetryableError if the connection fails, even while the body is read, or if the server is
    busy; UserError for all that a retry cannot change. name: for messages.
    """
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        with session.get(url, headers=headers, timeout=TIMEOUT, stream=True) as reply:
            raise_for_status(reply, name)
            yield reply
    except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError, HTTPError) as error:
        # only the type: the message may quote a signed address
        raise RetryableError(f"the connection failed ({type(error).__name__})") from None
    except requests.RequestException as error:
        raise UserError(f"{name} cannot be requested ({type(error).__name__})") from None


def retry(name, attempt, received=lambda: 0):
    """
    Return attempt(); after a RetryableError wait and try again, at most TRIES times in a row.

    received() gives the bytes on disk; a try that gets further than all before starts the count
    anew.
    """
    most = received()
    failures = 0
    while True:
        try:
            return attempt()
        except RetryableError as error:
            failures = 1 if received() > most else failures + 1
            most = max(most, received())
            if failures == TRIES:
                raise UserError(f"{name}: {error}, {TRIES} times in a row; what came is kept, "
                                "the same command resumes there") from None
            seconds = min(300, error.wait or 2 ** failures)
            print(f"{name}: {error}; again in {seconds:.0f} s", flush=True)
            time.sleep(seconds)


def get_json(session, url, name):
    """Return the JSON object at a URL of the hub."""
    def attempt():
        """Request the URL once."""
        with open_url(session, url, name) as reply:
            try:
                content = json.loads(reply.content)
            except (ValueError, RecursionError):
                content = None
        if not isinstance(content, dict):
            raise UserError(f"{name}: the server does not answer as a hub does; is HF_ENDPOINT "
                            "right?")
        return content
    return retry(name, attempt)


def describe(session, url, sha256):
    """Open any URL and return it as a File: the size that the server tells, the hash as given."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    with open_url(session, url, name) as reply:
        content_type = reply.headers.get("Content-Type", "")
        if "text/html" in content_type and not sha256:
            raise UserError(f"{printable(url)} is a web page, not a file; addresses of the "
                            "hub's files have /resolve/ in them, or say owner/name alone")
        size = re.fullmatch("[0-9]{1,15}", reply.headers.get("Content-Length", ""))
    return File(name, url, int(size[0]) if size else None, sha256)


def progress_line(file, start, received, seconds):
    """Format the progress of a download that began at byte `start`, `seconds` ago."""
    speed = (received - start) / seconds
    if not file.size:
        return f"{file.name:<40} {received / 1e6:,.1f} MB {speed / 1e6:8.1f} MB/s"
    left = format_seconds((file.size - received) / speed)
    return f"{file.name:<40} {received / file.size:>8.0%} {speed / 1e6:8.1f} MB/s   {left} left"


def download_rest(session, file, part):
    """Request, once, what is missing of a file, and append it to the .part."""
    received = size_of(part)
    size = math.inf if file.size is None else file.size
    if part.exists() and received == size:
        return
    with open_url(session, file.url, file.name, received) as reply:
        if reply.status_code == 200:
            # the server sends the whole file, whatever the range
            received = 0
        elif not reply.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
            part.unlink(missing_ok=True)
            raise RetryableError("the server did not resume at the requested byte")
        start = received
        started = last_print = time.monotonic()
        with open(part, "ab" if received else "wb") as out:
            # stop soon after `size`: a server must not fill the disk
            while received <= size:
                piece = reply.raw.read1(PIECE, decode_content=False)
                if not piece:
                    break
                out.write(piece)
                received += len(piece)
                now = time.monotonic()
                if now - last_print >= EVERY:
                    print(progress_line(file, start, received, now - started), flush=True)
                    last_print = now
    if received < size < math.inf:
        raise RetryableError(f"it ended after {received:,} of {size:,} bytes")


def download(session, file, path):
    """Download a file as its .part, check size and hash, then rename it to `path`."""
    part = part_path(path)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if not file.hash:
            # a part of an earlier run may be of another file
            part.unlink(missing_ok=True)
        retry(file.name, lambda: download_rest(session, file, part), lambda: size_of(part))
        size = size_of(part)
        digest = hash_like(part, file.hash)
        if file.size not in (None, size) or file.hash not in ("", digest):
            part.unlink()
            raise UserError(f"{file.name}: what came ({size:,} bytes, hash {digest}) is not "
                            f"what was named ({file.size} bytes, {file.hash}), and was deleted")
        part.replace(path)
    except OSError as error:
        raise UserError(f"{part}: {error.strerror}; what came is kept, the same command "
                        "resumes there") from None
    print(f"{file.name}: complete, {'hash' if file.hash else 'sha256'} {digest}", flush=True)


# ------------------------------------------------------------------------------------------------
# the hub's description of a repository (JSON)


def find_licence(info):
    """Return the licence that a repository's description names, or None."""
    card = info.get("cardData")
    if isinstance(card, dict) and card.get("license"):
        return printable(card["license"]) or None
    tags = info.get("tags")
    tags = map(str, tags) if isinstance(tags, list) else []
    licences = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    return printable(", ".join(licences)) or None


def to_file(name, entry, base):
    """Make a File from an entry of the hub's list; UserError if it lacks a size or a hash."""
    size = entry.get("size")
    # large files are stored outside git, and have a sha256
    lfs = entry.get("lfs")
    digest = str(lfs["sha256"] if lfs else entry.get("blobId"))
    known = re.fullmatch("[0-9a-f]{40}([0-9a-f]{24})?", digest)
    if type(size) is not int or size < 0 or not known:
        raise UserError(f"{printable(name)}: the hub names no size or no hash to check it by")
    return File(name, f"{base}/{quote(name)}", size, digest)


def select_files(info, home, dataset, globs):
    """List the Files to take of a repository (its description, its address); print the others."""
    try:
        entries = {entry["rfilename"]: entry for entry in info["siblings"]}
        names = select_names(entries, dataset, globs)
        base = f"{home}/resolve/{quote(info['sha'], safe='')}"
        files = [to_file(name, entries[name], base) for name in names]
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{home}: the hub's list of files makes no sense") from None
    others = [printable(name) for name in entries if name not in names]
    if others:
        more = f" and {len(others) - 8:,} more" if len(others) > 8 else ""
        print(f"not taken: {', '.join(others[:8])}{more} (--files GLOB takes others)")
    if not files:
        raise UserError(f"{home} has none of the files to take; --files GLOB takes others")
    if not (dataset or globs or {"tokenizer.model", "adapter_config.json"}.intersection(names)):
        raise UserError(f"{home} has no tokenizer.model, the only kind of tokenizer that is read "
                        "here; --files GLOB takes files all the same")
    return files


def files_of_repository(session, hub, name, dataset, globs):
    """List the Files to take of a model or data set; print its licence before anything is taken."""
    kind = "datasets" if dataset else "models"
    home = f"datasets/{name}" if dataset else name
    info = get_json(session, f"{hub}/api/{kind}/{quote(name)}?blobs=true", name)
    print(f"{hub}/{home}, revision {printable(info.get('sha'))}")
    print(f"licence: {find_licence(info) or 'none is named'}; you have to read it and keep to it")
    if info.get("gated"):
        print("gated: accept its conditions on that page, and set HF_TOKEN")
    return select_files(info, f"{hub}/{quote(home)}", dataset, globs)


# ------------------------------------------------------------------------------------------------
# the command


def download_all(session, files, out):
    """Download the Files that are not complete on disk yet, if the disk has room for them."""
    # all names are checked before anything is written
    paths = [safe_path(out, file.name) for file in files]
    missing = []
    needed = 0
    for file, path in zip(files, paths):
        size = "?" if file.size is None else f"{file.size:,}"
        if is_complete(file, path):
            print(f"{size:>18} bytes  {file.name}  (already complete, checked)")
        else:
            print(f"{size:>18} bytes  {file.name}")
            missing.append((file, path))
            needed += max(0, (file.size or 0) - size_of(part_path(path)))
    Path(out).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(f"{out} has room for {free:,} bytes, and {needed:,} are still missing")
    for file, path in missing:
        download(session, file, path)
    print(f"{out}: {len(files)} files, {len(missing)} of them downloaded now")


def fetch(name, out, dataset=False, globs=None, sha256=""):
    """
    Download a repository of the hub, or the file at an address, into the directory `out`.

    name: owner/name, or http...; dataset: the name is that of a data set; globs: files to take
    instead of the usual ones; sha256: what the file at an address must have.
    """
    if not re.fullmatch("([0-9a-f]{64})?", sha256):
        raise UserError("--sha256 takes 64 of the digits 0-9 and a-f")
    hub = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not hub.startswith(("http://", "https://")):
        raise UserError(f"HF_ENDPOINT={hub} is no address: it must begin with http:// or https://")
    token = os.environ.get("HF_TOKEN", "")
    if name.startswith(("http://", "https://")):
        if not name.startswith(f"{hub}/"):
            token = ""
        session = make_session(name, token)
        files = [retry("the address", lambda: describe(session, name, sha256))]
    else:
        session = make_session(hub, token)
        files = files_of_repository(session, hub, name, dataset, globs)
    download_all(session, files, out)


def main():
    """Read the command line, and download what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    add = parser.add_argument
    add("name", help="owner/model, owner/set (with --dataset), or the address of one file")
    add("--out", required=True, metavar="DIR", help="directory for the files")
    add("--dataset", action="store_true", help="the name is that of a data set")
    add("--files", nargs="+", metavar="GLOB", help="take these files instead of the usual ones")
    add("--sha256", default="", metavar="HEX", help="the hash of the file at an address")
    args = parser.parse_args()
    fetch(args.name, args.out, args.dataset, args.files, args.sha256)


if __name__ == "__main__":
    run(main)
