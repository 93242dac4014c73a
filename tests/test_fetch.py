"""Fetching: whole, resumed and checked, from a hub and against a hub that lies."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

from data.formats import fetch as f
from data.program import UserError

FILES = {"config.json": b'{"dim": 8}', "model.safetensors": bytes(range(256)) * 400,
         "tokenizer.model": b"pieces", "README.md": b"read me", "empty.json": b""}
SHA = "0123456789abcdef0123456789abcdef01234567"
TAKEN = ["config.json", "tokenizer.model", "model.safetensors"]


class Hub(BaseHTTPRequestHandler):
    """A hub of one repository; what it does wrong is in server.faults, what it was asked in server.requests."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        """Nothing: tests are quiet."""

    def reply(self, status, data=b"", **headers):
        self.send_response(status)
        for name, value in {"Content_Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        faults, path = self.server.faults, unquote(urlsplit(self.path).path)
        self.server.requests.append((path, dict(self.headers)))
        name = path.partition(f"/{SHA}/")[2] or path.rpartition("/")[2]
        if faults.get("status", {}).get(name):
            self.reply(faults["status"][name].pop(0), **faults.get("headers", {}))
        elif path.startswith("/api/"):
            self.reply(200, faults.get("page", b"") or json.dumps(self.server.page).encode())
        elif faults.get("elsewhere"):
            self.reply(302, Location=faults["elsewhere"] + self.path)
        elif name in self.server.files:
            self.file(self.server.files[name], faults)
        else:
            self.reply(404)

    def file(self, data, faults):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start and not faults.get("no range"):
            start += faults.get("shift", 0)
            if start >= len(data):
                return self.reply(416, Content_Range=f"bytes */{len(data)}")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            start = 0
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        # cuts: after how many bytes the connection breaks, this time and the next ones
        cut = faults["cuts"].pop(0) if faults.get("cuts") and len(data) > 1000 else len(data)
        self.wfile.write(data[start:start + cut])
        self.wfile.flush()
        if "stall" in faults and not start:
            faults["stall"].wait(60)
        self.close_connection = cut < len(data) - start


def entry(name, data, lfs=None):
    """A file as the hub's list has it: with sha256 if it is large, else with git's hash."""
    lfs = len(data) > 1000 if lfs is None else lfs
    known = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    return known | ({"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}} if lfs else {})


def start(files=FILES):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    # a client that breaks off is no news
    server.handle_error = lambda *who: None
    server.files, server.faults, server.requests = dict(files), {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.page = {"sha": SHA, "siblings": [entry(name, data) for name, data in files.items()],
                   "cardData": {"license": "mit"}, "gated": False}
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def test_a_model_without_a_tokenizer_that_we_read_is_refused_before_its_weights(hub, fetch):
    del hub.files["tokenizer.model"]
    hub.page["siblings"] = [entry(name, data) for name, data in (hub.files | {"tokenizer.json": b"{}"}).items()]
    with pytest.raises(UserError, match="no tokenizer.model"):
        fetch("owner/model")
    assert not any("safetensors" in path for path, _ in hub.requests)


@pytest.fixture
def hub(monkeypatch):
    server = start()
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """fetch(name, ...) into the folder `out`; the waits are not slept but collected in fetch.waits."""
    def fetch(name="owner/model", **more):
        f.fetch(name, str(tmp_path / "out"), **more)
    fetch.waits, fetch.out = [], tmp_path / "out"
    # ten seconds pass whenever the clock is read
    clock = SimpleNamespace(monotonic=count(0, 10).__next__, sleep=fetch.waits.append)
    monkeypatch.setattr(f, "time", clock)
    return fetch


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def ranges(hub, name="model.safetensors"):
    return [headers.get("Range") for path, headers in hub.requests if path.endswith(f"/{name}")]


# ------------------------------------------------------------------------------------------------
# a hub that does what it should


def test_a_model_comes_whole_and_nothing_is_fetched_twice(hub, fetch, capsys):
    fetch()
    printed = capsys.readouterr().out
    assert files_in(fetch.out) == sorted(TAKEN)
    assert all((fetch.out / name).read_bytes() == FILES[name] for name in TAKEN)
    assert "licence: mit" in printed and f"revision {SHA}" in printed and "102,400 bytes  model.safetensors" in printed
    assert "not taken: README.md, empty.json" in printed and "MB/s" in printed and "100%" in printed
    before = len(hub.requests)
    fetch()
    assert len(hub.requests) == before + 1 and "already complete, checked" in capsys.readouterr().out
    # the right size is not enough
    (fetch.out / "config.json").write_bytes(b'{"dim": 9}')
    fetch()
    assert (fetch.out / "config.json").read_bytes() == FILES["config.json"] and len(hub.requests) == before + 3


def test_a_data_set_at_any_depth(hub, fetch, capsys):
    hub.files = {"a.json": b"[]", "deep/b c#1.jsonl": b"{}\n", "c.parquet": b"PAR1", "empty.json": b""}
    hub.page = {"sha": SHA, "siblings": [entry(*pair) for pair in hub.files.items()], "tags": ["x", "license:cc0"]}
    fetch("owner/set", dataset=True)
    assert files_in(fetch.out) == ["a.json", "deep/b c#1.jsonl", "empty.json"]
    printed = capsys.readouterr().out
    assert "not taken: c.parquet" in printed and "licence: cc0" in printed
    assert hub.requests[0][0] == "/api/datasets/owner/set"
    assert hub.requests[1][0].startswith("/datasets/owner/set/resolve/")
    fetch("owner/set", dataset=True, globs=["*.parquet"])
    assert (fetch.out / "c.parquet").read_bytes() == b"PAR1"
    with pytest.raises(UserError, match="has none of the files to take"):
        fetch("owner/set", dataset=True, globs=["*.csv"])


@pytest.mark.parametrize("names, taken", [
    ("model.safetensors pytorch_model.bin consolidated.00.pth params.json", "model.safetensors"),
    ("model-1-of-2.safetensors model.safetensors.index.json consolidated.safetensors",
     "model-1-of-2.safetensors model.safetensors.index.json"),
    ("pytorch_model-1.bin pytorch_model.bin.index.json training_args.bin",
     "pytorch_model-1.bin pytorch_model.bin.index.json"),
    ("consolidated.00.pth consolidated.01.pth params.json checklist.chk",
     "consolidated.00.pth consolidated.01.pth params.json"),
    ("adapter_config.json adapter_model.bin README.md", "adapter_config.json adapter_model.bin"),
    ("adapter_model.safetensors pytorch_model.bin", "adapter_model.safetensors pytorch_model.bin"),
    ("onnx/model.safetensors x/config.json odd.safetensors", "odd.safetensors"),
    ("README.md", ""),
])
def test_the_weights_are_taken_in_one_format(names, taken):
    assert f.select_names(names.split(), False, None) == taken.split()


@pytest.mark.parametrize("page, licence", [
    ({"cardData": {"license": "mit"}, "tags": ["license:other"]}, "mit"),
    ({"tags": ["license:a", "license:b"]}, "a, b"),
    ({}, None), ({"cardData": None, "tags": None}, None), ({"cardData": [], "tags": 7}, None),
    ({"cardData": {"license": "m\x1b[2Jit\n"}}, "m[2Jit"),
])
def test_the_licence(page, licence):
    assert f.find_licence(page) == licence


# ------------------------------------------------------------------------------------------------
# what breaks


def test_a_cut_connection_goes_on_where_it_was(hub, fetch):
    hub.faults = {"cuts": [40000, 30000]}
    fetch()
    assert ranges(hub) == [None, "bytes=40000-", "bytes=70000-"] and fetch.waits == [2, 2]
    assert (fetch.out / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_after_tries_that_bring_nothing_the_part_stays_and_the_next_run_goes_on(hub, fetch):
    hub.faults = {"cuts": [40000] + [0] * 20}
    with pytest.raises(UserError, match="model.safetensors: .* 6 times in a row; what came is kept"):
        fetch()
    assert fetch.waits == [2, 4, 8, 16, 32] and ranges(hub) == [None] + ["bytes=40000-"] * 5
    assert (fetch.out / "model.safetensors.part").read_bytes() == FILES["model.safetensors"][:40000]
    hub.faults, hub.requests[:] = {}, []
    fetch()
    assert ranges(hub) == ["bytes=40000-"] and files_in(fetch.out) == sorted(TAKEN)


@pytest.mark.parametrize("faults, expected", [
    ({"no range": True}, [None, "bytes=40000-"]),
    ({"shift": 1}, [None, "bytes=40000-", None]),
    ({"shift": 1 << 20}, [None, "bytes=40000-", None]),
], ids=["no range", "another start", "416"])
def test_a_server_that_cannot_resume_is_asked_for_all_of_it(hub, fetch, faults, expected):
    hub.faults = {"cuts": [40000], **faults}
    fetch()
    assert ranges(hub) == expected
    assert (fetch.out / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_a_server_without_range_that_always_breaks_is_not_asked_for_ever(hub, fetch):
    hub.faults = {"cuts": [40000] * 99, "no range": True}
    with pytest.raises(UserError, match="6 times in a row"):
        fetch()
    assert len(ranges(hub)) == 6


def test_a_part_that_only_lacks_its_check_is_not_fetched_again(hub, fetch):
    fetch.out.mkdir()
    (fetch.out / "model.safetensors.part").write_bytes(FILES["model.safetensors"])
    fetch()
    assert ranges(hub) == [] and files_in(fetch.out) == sorted(TAKEN)


def test_a_killed_process_leaves_its_part(hub, fetch):
    hub.faults = {"cuts": [60000], "stall": threading.Event()}
    # a line of progress for every piece
    code = ("import sys, data.formats.fetch as f; f.EVERY = -1; f.time.monotonic = iter(range(10**6)).__next__; "
            "f.fetch('owner/model', sys.argv[1], globs=['model.*'])")
    with subprocess.Popen([sys.executable, "-c", code, fetch.out], stdout=subprocess.PIPE, text=True) as child:
        assert any("model.safetensors" in text and "59%" in text for text in child.stdout)
        child.kill()
    hub.faults["stall"].set()
    # all but what python itself had still to write
    size = (fetch.out / "model.safetensors.part").stat().st_size
    assert 50000 < size <= 60000 and files_in(fetch.out) == ["model.safetensors.part"]
    fetch()
    assert ranges(hub) == [None, f"bytes={size}-"] and files_in(fetch.out) == sorted(TAKEN)


def test_busy_servers_are_waited_for_as_they_ask(hub, fetch):
    hub.faults = {"status": {"model": [429, 503], "config.json": [500]}, "headers": {"Retry-After": 7}}
    fetch()
    assert fetch.waits == [7, 7, 7] and files_in(fetch.out) == sorted(TAKEN)
    hub.faults = {"status": {"model": [503] * 9}, "headers": {"Retry-After": 10 ** 6}}
    with pytest.raises(UserError, match="owner/model: HTTP 503, 6 times in a row"):
        fetch()
    assert fetch.waits[3:] == [300] * 5


def test_nobody_there(fetch, monkeypatch):
    server = start()
    server.shutdown()
    server.server_close()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(UserError, match="owner/model: the connection failed"):
        fetch()
    assert fetch.waits == [2, 4, 8, 16, 32]


# ------------------------------------------------------------------------------------------------
# what lies


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_wrong_hash_is_deleted_and_named(hub, fetch, name):
    hub.files[name] = FILES[name][:-1] + b"!"
    with pytest.raises(UserError, match=f"{name}: what came .* was deleted"):
        fetch()
    assert not [path for path in files_in(fetch.out) if path.startswith(name)]


@pytest.mark.parametrize("more", [1, 1 << 24])
def test_more_than_was_named_does_not_fill_the_disk(hub, fetch, more):
    hub.files["model.safetensors"] += bytes(more)
    with pytest.raises(UserError, match=r"what came \([0-9,]{7,9} bytes, .* is not what was named \(102400 bytes"):
        fetch()
    assert files_in(fetch.out) == ["config.json", "tokenizer.model"]


def test_less_than_was_named(hub, fetch):
    hub.files["model.safetensors"] = FILES["model.safetensors"][:50000]
    with pytest.raises(UserError, match="model.safetensors: .* 6 times in a row"):
        fetch()
    assert "model.safetensors" not in files_in(fetch.out)


@pytest.mark.parametrize("name", [
    "../x.json", "a/../../x.json", "/etc/x.json", "a\\..\\x.json", "C:x.json", "C:/x.json", "", ".", "a//x.json",
    "./x.json", "..", "x\0.json", "x\n.json", "\x1b[2J.json", "\ud800.json", "x.json.part", "a/", "//host/x.json",
    "link/x.json", "known.json", "half.json"])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(hub, fetch, name, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    fetch.out.mkdir()
    for link, to in {"link": "elsewhere", "known.json": "elsewhere/known", "half.json.part": "elsewhere/half"}.items():
        (fetch.out / link).symlink_to(tmp_path / to)
    hub.page["siblings"].append(entry("a", b"x") | {"rfilename": name})
    with pytest.raises(UserError) as problem:
        fetch(globs=["*"])
    assert str(problem.value).isprintable()
    assert [path for path in files_in(tmp_path) if "link" not in path] == [] and len(hub.requests) == 1


@pytest.mark.parametrize("change, why", [
    ({"size": None}, "no size"), ({"size": -1}, "no size"), ({"size": "12"}, "no size"), ({"size": True}, "no size"),
    ({"blobId": None}, "no hash"), ({"blobId": "../x"}, "no hash"), ({"lfs": {"sha256": 7}}, "no hash"),
    ({"lfs": {}}, None), ({"lfs": "x"}, "makes no sense"), ({"rfilename": 7}, "makes no sense"),
    ({"rfilename": None}, "makes no sense"), ({"rfilename": []}, "makes no sense"),
])
def test_a_list_that_cannot_be_checked(hub, fetch, change, why):
    hub.page["siblings"][0] |= change
    if why is None:
        return fetch()
    with pytest.raises(UserError, match=why):
        fetch()
    assert not fetch.out.exists()


@pytest.mark.parametrize("page", [
    b"<html>", b"[]", b"7", b"{}", b'{"siblings": 7, "sha": "x"}', b"\xff", b"[" * 10 ** 5,
    b'{"siblings": [7], "sha": "x"}', b'{"siblings": [], "sha": 7}', b'{"siblings": [], "sha": ""}',
    b'{"siblings": [{"rfilename": "config.json"}], "sha": "\\ud800"}'])
def test_a_page_that_is_none_of_a_hub(hub, fetch, page):
    hub.faults = {"page": page}
    with pytest.raises(UserError, match="does not answer as a hub|makes no sense|has none of"):
        fetch()
    assert not fetch.out.exists()


@pytest.mark.parametrize("status, why", [
    (404, "nothing of that name"), (401, "set HF_TOKEN"), (403, "accept its conditions"), (410, "answers HTTP 410"),
    (304, "answers HTTP 304")])
@pytest.mark.parametrize("name, what", [("model", "owner/model"), ("model.safetensors", "model.safetensors")])
def test_refusals_are_one_sentence_at_once(hub, fetch, status, why, name, what):
    hub.faults = {"status": {name: [status]}}
    hub.page["gated"] = "manual"
    with pytest.raises(UserError, match=f"{what}: .*{why}"):
        fetch()
    assert fetch.waits == []


# ------------------------------------------------------------------------------------------------
# the token, the disk, one file by its address


def bearers(server):
    return {headers.get("Authorization") for _, headers in server.requests}


def test_the_token_goes_to_the_hub_and_no_further(hub, fetch, capfd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other = start()
    hub.faults, other.faults = {"elsewhere": other.url}, {"cuts": [40000]}
    fetch()
    other.shutdown()
    other.server_close()
    assert bearers(hub) == {"Bearer hf_secret"} and bearers(other) == {None} and len(other.requests) == 4
    assert ranges(other) == [None, "bytes=40000-"]
    assert "secret" not in "".join(capfd.readouterr())
    assert not any(b"secret" in (fetch.out / name).read_bytes() for name in files_in(fetch.out))


def test_an_address_gets_the_token_only_if_it_is_the_hubs(hub, fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(f"{hub.url}/any/config.json")
    assert bearers(hub) == {"Bearer hf_secret"}
    monkeypatch.setenv("HF_ENDPOINT", hub.url[:-1])
    hub.requests.clear()
    fetch(f"{hub.url}/any/config.json")
    assert bearers(hub) == {None}


@pytest.mark.parametrize("token", ["two words", "kéy", "a\nb"])
def test_a_token_that_is_none(hub, fetch, token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match="HF_TOKEN is no token") as problem:
        fetch()
    assert token not in str(problem.value) and hub.requests == []


def test_room_on_the_disk(hub, fetch, monkeypatch):
    fetch.out.mkdir()
    (fetch.out / "model.safetensors.part").write_bytes(FILES["model.safetensors"][:400])
    free = 102400 - 400 + 10 + 6
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free - 1))
    with pytest.raises(UserError, match="has room for 102,015 bytes, and 102,016 are still missing"):
        fetch()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    fetch()


def test_a_full_disk_is_one_sentence(hub, fetch, monkeypatch):
    def full(path, mode):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(f, "open", full, raising=False)
    with pytest.raises(UserError, match="config.json.part: No space left on device; what came is kept"):
        fetch()
    assert fetch.waits == []


def test_one_file_by_its_address(hub, fetch, capsys):
    url, data = f"{hub.url}/some/model.safetensors?signed=1", FILES["model.safetensors"]
    known = hashlib.sha256(data).hexdigest()
    hub.faults = {"cuts": [0, 40000, 30000]}
    fetch(url)
    assert (fetch.out / "model.safetensors").read_bytes() == data and f"sha256 {known}" in capsys.readouterr().out
    before = len(hub.requests)
    fetch(url, sha256=known)
    assert len(hub.requests) == before + 1 and "already complete" in capsys.readouterr().out
    with pytest.raises(UserError, match="was deleted"):
        fetch(url, sha256="0" * 64)
    assert files_in(fetch.out) == ["model.safetensors"]


@pytest.mark.parametrize("url, why", [
    ("http://", "cannot be requested"), ("http://[", "no address"), ("http://a:b@127.0.0.1/x", "password"),
    ("{}/", "no name for a file"), ("{}/%2e%2e", "no name|nothing of that name"), ("{}/x/..%2f", "no name"),
    ("{}/none", "nothing of that name")])
def test_addresses_of_no_file(hub, fetch, url, why):
    hub.files |= {"": b"x", "..": b"y"}
    with pytest.raises(UserError, match=why):
        fetch(url.format(hub.url))
    assert not fetch.out.exists()


def test_a_hash_that_is_none(hub, fetch):
    with pytest.raises(UserError, match="--sha256 takes 64"):
        fetch(f"{hub.url}/config.json", sha256="abc")
    assert hub.requests == []


def test_the_program(hub, tmp_path):
    def program(*words):
        return subprocess.run([sys.executable, "-m", "data.formats.fetch", *words, "--out", tmp_path / "out"],
                              capture_output=True, text=True, cwd=Path(f.__file__).parents[2], env=os.environ)
    assert program("owner/model").returncode == 0 and files_in(tmp_path / "out") == sorted(TAKEN)
    hub.faults = {"status": {"model": [404]}}
    failed = program("owner/model")
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "nothing of that name" in failed.stderr
