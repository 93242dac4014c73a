"""
Fetch a public checkpoint or data set from the Hugging Face hub, or one file from any address.

    python -m data.formats.fetch owner/model --out base
    python -m data.formats.fetch owner/set --dataset --out dialogues
    python -m data.formats.fetch https://host/file.jsonl --out dialogues --sha256 HEX

HF_TOKEN is for what is gated, HF_ENDPOINT for another hub. What broke off goes on where it was.
Here: which files are taken, where they may lie, and a download that trusts nobody: each file has
to be of the size and the hash that the hub names. Nothing fetched is run or unpickled here.
Not here: the reading (model.py, data/formats/files.py).
"""

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections import namedtuple
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote, unquote, urlsplit

import requests
from requests.exceptions import ChunkedEncodingError
# what requests is made of
from urllib3.exceptions import HTTPError

from data.api.budget import is_loopback
from data.api.protocol import RetryableError, retry_after, is_transient
from data.program import UserError, format_seconds, run

HUB = "https://huggingface.co"
# tries that bring nothing, one after the other; seconds to connect, and between two bytes
TRIES, TIMEOUT = 6, (10, 60)
# seconds from one line of progress to the next
EVERY = 5

ALWAYS = ["config.json", "generation_config.json", "tokenizer.model", "tokenizer_config.json",
          "special_tokens_map.json", "adapter_config.json", "adapter_model.*"]
# the first of these that a model has: often the same weights lie there in several formats
WEIGHTS = [["model*.safetensors*"], ["*.safetensors*"], ["pytorch_model*.bin*"],
           ["params.json", "consolidated.*.pth"]]
DIALOGUES = ["*.json", "*.jsonl", "*.json.gz", "*.jsonl.gz"]

# size: in bytes, or None; hash: sha256, or git's (sha1) of small files, or "" if nobody tells
File = namedtuple("File", "name url size hash")


# ------------------------------------------------------------------------------------------------
# which files, and where they may lie


def matching(names, globs):
    """The names that match one of the globs; * crosses folders."""
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def wanted(names, dataset, globs):
    """The names to take: what the globs say or, without any, what a model or data set needs."""
    if globs or dataset:
        return matching(names, globs or DIALOGUES)
    top = [name for name in names if "/" not in name]
    always = matching(top, ALWAYS)
    rest = [name for name in top if name not in always]
    return always + next(filter(None, (matching(rest, row) for row in WEIGHTS)), [])


def place(out, name):
    """Where a file goes whose name came from the network, or a Problem: inside `out` or nowhere."""
    pure = PurePosixPath(name)
    odd = (str(pure) != name or not pure.parts or ".." in pure.parts or "\\" in name
           or PureWindowsPath(name).anchor or not name.isprintable() or name.endswith(".part"))
    path, home = Path(out, name), Path(os.path.realpath(out))
    # a link that lies there already may lead anywhere
    ends = [] if odd else [Path(os.path.realpath(end)) for end in (path, part_of(path))]
    if odd or not all(end.is_relative_to(home) for end in ends):
        raise UserError(f"{name[:200]!r} is no name for a file inside {out}; nothing was written")
    return path


def part_of(path):
    """Where a file lies until it is whole."""
    return Path(f"{path}.part")


def length(path):
    """The bytes that are there."""
    return path.stat().st_size if path.exists() else 0


def digest(path, like):
    """The hash of a file on disk, in hex: git's where `like` is one of git's, else sha256."""
    blob = b"blob %d\0" % length(path)
    known = hashlib.sha1(blob) if len(like) == 40 else hashlib.sha256()
    with open(path, "rb") as data:
        while piece := data.read(1 << 20):
            known.update(piece)
    return known.hexdigest()


def there(file, path):
    """Whether a file is on disk already: the right one, not only one of that name."""
    return bool(file.hash) and path.is_file() and length(path) == file.size and digest(
        path, file.hash) == file.hash


def shown(text):
    """A text from the network as one line that cannot command a terminal."""
    return "".join(letter for letter in str(text) if letter.isprintable())[:200]


# ------------------------------------------------------------------------------------------------
# the wire: plain requests, tried again where time heals


class Progress:
    """A line every few seconds: how far a file is, how fast it comes, how long it will take."""

    def __init__(self, file, had, now):
        self.file, self.had, self.now = file, had, now
        self.began = self.told = now()

    def __call__(self, have):
        if (moment := self.now()) - self.told >= EVERY:
            self.told = moment
            speed = (have - self.had) / (moment - self.began)
            far, left = f"{have / 1e6:,.1f} MB", ""
            if self.file.size:
                far = f"{have / self.file.size:.0%}"
                left = f"{format_seconds((self.file.size - have) / speed)} left"
            print(f"{self.file.name:<40} {far:>8} {speed / 1e6:8.1f} MB/s   {left}", flush=True)


class Wire:
    """One server, and where it leads us. The token goes to that server alone."""

    def __init__(self, home, token="", now=time.monotonic, sleep=time.sleep):
        self.now, self.sleep, self.session = now, sleep, requests.Session()
        # no proxy between us and this machine, and nothing of netrc in our token's place
        self.session.trust_env, self.session.auth = not is_loopback(home), lambda request: request
        if "@" in urlsplit(home).netloc:
            raise UserError("a password has no place in an address; a token belongs in HF_TOKEN")
        # bytes as they are on their disk: only those can be counted from the middle
        self.session.headers["Accept-Encoding"] = "identity"
        if not token.isascii() or len(token.split()) > 1:
            raise UserError("HF_TOKEN is no token: it holds spaces, or letters that no header can")
        if token:
            # requests itself drops it where a redirect leaves the host
            self.session.headers["Authorization"] = f"Bearer {token.strip()}"

    @contextmanager
    def get(self, url, what, start=0):
        """An open reply from byte `start` on. What fails, now or later, is Trouble or a Problem."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            with self.session.get(url, headers=headers, timeout=TIMEOUT, stream=True) as reply:
                self.judge(reply, what)
                yield reply
        except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError,
                HTTPError) as error:
            # its name alone: its text may quote an address that is signed
            raise RetryableError(f"the connection failed ({type(error).__name__})") from None
        except requests.RequestException as error:
            raise UserError(f"{what} cannot be asked for ({type(error).__name__})") from None

    def judge(self, reply, what):
        """What a reply that brings nothing means."""
        status = reply.status_code
        if status in (401, 403):
            raise UserError(f"{what}: nothing of that name is public (HTTP {status}); if it is "
                          "gated, accept its conditions on the hub's page and set HF_TOKEN")
        if status == 404:
            raise UserError(f"{what}: there is nothing of that name, or it is private (HTTP 404)")
        if is_transient(status):
            raise RetryableError(f"HTTP {status}", retry_after(reply.headers))
        if status not in (200, 206, 416):
            raise UserError(f"{what}: the server answers HTTP {status}")

    def persist(self, what, attempt, came=lambda: 0):
        """attempt(), tried again ever later; a try that gets further than any before is free."""
        furthest, failed = came(), 0
        while True:
            try:
                return attempt()
            except RetryableError as trouble:
                failed = failed + 1 if came() <= furthest else 1
                furthest = max(furthest, came())
                if failed == TRIES:
                    raise UserError(f"{what}: {trouble}, {TRIES} times in a row; what came is kept, "
                                  "the same command goes on from there") from None
                wait = min(300, trouble.wait or 2 ** failed)
                print(f"{what}: {trouble}; again in {wait:.0f} s", flush=True)
                self.sleep(wait)

    def page(self, url, what):
        """The JSON object at an address."""
        def attempt():
            with self.get(url, what) as reply:
                try:
                    page = json.loads(reply.content)
                except (ValueError, RecursionError):
                    page = None
            if not isinstance(page, dict):
                raise UserError(f"{what}: the server does not speak as a hub does; is HF_ENDPOINT "
                              "right?")
            return page
        return self.persist(what, attempt)

    def look(self, url, sha256):
        """The file at any address, as far as its server tells."""
        name = PurePosixPath(unquote(urlsplit(url).path)).name
        with self.get(url, name) as reply:
            if "text/html" in reply.headers.get("Content-Type", "") and not sha256:
                raise UserError(f"{shown(url)} is a page to look at, no file; of the hub's files the "
                              "address has /resolve/ in it, or say owner/name alone")
            size = re.fullmatch("[0-9]{1,15}", reply.headers.get("Content-Length", ""))
        return File(name, url, int(size.group()) if size else None, sha256)

    def try_once(self, file, part):
        """One try: ask for what is missing, and add what comes to the .part."""
        have, most = length(part), math.inf if file.size is None else file.size
        if part.exists() and have == most:
            return
        with self.get(file.url, file.name, have) as reply:
            if reply.status_code == 200:
                # all of it, whatever we asked for
                have = 0
            elif not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink(missing_ok=True)
                raise RetryableError("the server did not go on where it was asked to")
            tell = Progress(file, have, self.now)
            with open(part, "ab" if have else "wb") as out:
                # a server may send more than it named, but not fill our disk with it
                while have <= most and (piece := reply.raw.read1(1 << 20, decode_content=False)):
                    out.write(piece)
                    have += len(piece)
                    tell(have)
        if have < most < math.inf:
            raise RetryableError(f"it ended after {have:,} of {most:,} bytes")

    def bring(self, file, path):
        """Fetch one file as its .part, and let it have its name once it is known to be right."""
        part = part_of(path)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            if not file.hash:
                # nobody could tell whether what an earlier run left is of this very file
                part.unlink(missing_ok=True)
            self.persist(file.name, lambda: self.try_once(file, part), lambda: length(part))
            size, found = length(part), digest(part, file.hash)
            if file.size not in (None, size) or file.hash not in ("", found):
                part.unlink()
                raise UserError(f"{file.name}: what came ({size:,} bytes, hash {found}) is not what "
                              f"was named ({file.size} bytes, {file.hash}), and was deleted")
            part.replace(path)
        except OSError as error:
            raise UserError(f"{part}: {error.strerror}; what came is kept, and the same command "
                          "goes on from there") from None
        print(f"{file.name}: whole, {'hash' if file.hash else 'sha256'} {found}", flush=True)


# ------------------------------------------------------------------------------------------------
# what the hub says


def licence(page):
    """The licence that the page of a model or data set names, or None."""
    card, tags = page.get("cardData"), page.get("tags")
    named = card.get("license") if isinstance(card, dict) else None
    tagged = [tag for tag in map(str, tags if isinstance(tags, list) else [])
              if tag.startswith("license:")]
    return shown(named or ", ".join(tagged).replace("license:", "")) or None


def file_of(name, entry, base):
    """One entry of the hub's list as a File, or a Problem if nobody could check what comes."""
    # large files are stored apart from git, under a better hash
    size, lfs = entry.get("size"), entry.get("lfs")
    known = str(lfs["sha256"] if lfs else entry.get("blobId"))
    if type(size) is not int or size < 0 or not re.fullmatch("[0-9a-f]{40}([0-9a-f]{24})?", known):
        raise UserError(f"{shown(name)}: the hub names no size or no hash, so nobody could check it")
    return File(name, f"{base}/{quote(name)}", size, known)


def files_of(page, home, dataset, globs):
    """The files to take, of those on a page of the hub; says what is taken and what is not."""
    try:
        entries = {entry["rfilename"]: entry for entry in page["siblings"]}
        names = wanted(entries, dataset, globs)
        base = f"{home}/resolve/{quote(page['sha'], safe='')}"
        files = {name: file_of(name, entries[name], base) for name in names}
    except (TypeError, KeyError, ValueError):
        raise UserError(f"{home}: the hub's list of files makes no sense") from None
    if left := [shown(name) for name in entries if name not in files]:
        more = f" and {len(left) - 8:,} more" if len(left) > 8 else ""
        print(f"not taken: {', '.join(left[:8])}{more} (--files GLOB takes what you name)")
    if not files:
        raise UserError(f"{home} holds nothing of what is asked for; --files GLOB takes other files")
    return list(files.values())


def ask_hub(wire, hub, name, dataset, globs):
    """What to take of a model or data set. Its licence is told before anything is fetched."""
    kind, home = ("datasets", f"datasets/{name}") if dataset else ("models", name)
    page = wire.page(f"{hub}/api/{kind}/{quote(name)}?blobs=true", name)
    print(f"{hub}/{home}, revision {shown(page.get('sha'))}")
    print(f"licence: {licence(page) or 'none is named'}; what it allows is up to you to find out, "
          "and to keep to")
    if page.get("gated"):
        print("gated: accept its conditions on that page, and set HF_TOKEN")
    return files_of(page, f"{hub}/{quote(home)}", dataset, globs)


# ------------------------------------------------------------------------------------------------
# the program


def make_room(out, missing):
    """A Problem unless the disk has room for what is missing."""
    need = sum(max(0, (file.size or 0) - length(part_of(path))) for file, path in missing)
    Path(out).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if need > free:
        raise UserError(f"{out} has room for {free:,} bytes, and {need:,} are still missing")


def take(wire, files, out):
    """Fetch the files that are not there yet."""
    # all names are judged before anything is written
    places = [(file, place(out, file.name)) for file in files]
    missing = []
    for file, path in places:
        have = there(file, path)
        size = "?" if file.size is None else f"{file.size:,}"
        print(f"{size:>18} bytes  {file.name}{'  (there already, checked)' if have else ''}")
        missing += [] if have else [(file, path)]
    make_room(out, missing)
    for file, path in missing:
        wire.bring(file, path)
    print(f"{out}: {len(files)} files, {len(missing)} of them fetched now")


def fetch(args, **how):
    """Fetch what a name or an address stands for; how: another `now` or `sleep`, in tests."""
    if not re.fullmatch("([0-9a-f]{64})?", args.sha256):
        raise UserError("--sha256 takes 64 of the digits 0-9 and a-f")
    hub = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not hub.startswith(("http://", "https://")):
        raise UserError(f"HF_ENDPOINT={hub} is no address: it has to begin with http:// or https://")
    token = os.environ.get("HF_TOKEN", "")
    if args.name.startswith(("http://", "https://")):
        wire = Wire(args.name, token if args.name.startswith(f"{hub}/") else "", **how)
        files = [wire.persist("the address", lambda: wire.look(args.name, args.sha256))]
    else:
        wire = Wire(hub, token, **how)
        files = ask_hub(wire, hub, args.name, args.dataset, args.files)
    take(wire, files, args.out)


def arguments():
    parser = argparse.ArgumentParser(description="Fetch a checkpoint, a data set, or one file.")
    add = parser.add_argument
    add("name", help="owner/model, owner/set (with --dataset), or the address of one file")
    add("--out", required=True, metavar="DIR", help="where the files go")
    add("--dataset", action="store_true", help="the name is that of a data set")
    add("--files", nargs="+", metavar="GLOB", help="take these files instead of the usual ones")
    add("--sha256", default="", metavar="HEX", help="what the file at an address must be")
    return parser.parse_args()


if __name__ == "__main__":
    run(lambda: fetch(arguments()))
