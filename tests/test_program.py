"""
Files that are written: nothing old goes before the new is whole, whatever is asked and whatever fails. Tests
data/program.py, and the commands that write a checkpoint.
"""

import json
import os
import resource
import threading
from pathlib import Path

import pytest

import train
from data import program
from data.checkpoint import load_model, save_model
from data.formats import convert
from data.measure import tables
from data.program import UserError, require_apart, staged, write_text


@pytest.fixture
def small_disk():
    """small_disk(n): from now on no file can become larger than n bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def base(make_model, tokenizer, tmp_path):
    """The directory of a small checkpoint."""
    save_model(make_model(), tmp_path / "base")
    tokenizer.save(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def learn(run_command, files, base):
    """learn(*words) trains for three updates on a command line, from the base."""
    return lambda *words: run_command(train.main, "--learn", "human", "--data", files, "--base", base, "--steps", 3,
                                      "--precision", "float32", "--attention", "fused", *words)


def contents(directory):
    """{path: bytes} of all files below a directory."""
    return {path: path.read_bytes() for path in sorted(Path(directory).rglob("*")) if path.is_file()}


def test_a_file_is_whole_or_as_it_was(tmp_path, small_disk):
    (tmp_path / "x").write_text("old")

    def broken():
        yield "new"
        raise KeyError
    with pytest.raises(KeyError):
        write_text(tmp_path / "x", broken())
    small_disk(10_000)
    with pytest.raises(UserError, match="x: .*unchanged"):
        write_text(tmp_path / "x", ["much"] * 10_000)
    with staged(tmp_path / "new") as new:
        (new / "a").write_text("a")
    with pytest.raises(UserError, match="new: .*unchanged"), staged(tmp_path / "new") as new:
        (new / "a").write_text("b")
        (new / "b").write_text("b" * 20_000)
    assert contents(tmp_path) == {tmp_path / "new" / "a": b"a", tmp_path / "x": b"old"}


def test_through_a_link_or_into_a_pipe_is_where_is_written(tmp_path):
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    write_text(tmp_path / "link", ["new"])
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", ["new"])
    reader.join()
    assert read == ["new"] and (tmp_path / "pipe").is_fifo()
    write_text("/dev/null", ["new"])
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("output", ["in/a", "in", "in/a/b", "link", "hard", "linked/a", "in/../in/a"])
def test_what_is_written_is_nothing_that_is_read(tmp_path, output):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "in/a")
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    os.link(tmp_path / "in/a", tmp_path / "hard")
    given = str(tmp_path / "in/a")
    for word in (given, f"name={given}", f"prompt:{given}", [None, [given]]):
        with pytest.raises(UserError, match="write somewhere else"):
            require_apart([tmp_path / output], [word], directory=not (tmp_path / output).is_file())
    require_apart([tmp_path / "in/b", "/dev/stdout"], [given, "/dev/stdin", "http://x/y"])
    # beside what is read from a directory, but not in its place
    require_apart([tmp_path / "in/report.json"], [tmp_path / "in"])
    for name in ("config.json", "model.safetensors", "tokenizer.model", "question.jsonl", "model_answer/a.jsonl"):
        with pytest.raises(UserError, match="write somewhere else"):
            require_apart([tmp_path / "in" / name], [tmp_path / "in"])
    with pytest.raises(UserError, match="write somewhere else"):
        require_apart([tmp_path / "b", tmp_path / "b"], [])
    for wrong, directory in ((tmp_path / "in", False), (tmp_path / "in/a", True), ("/dev/null", True)):
        with pytest.raises(UserError, match="has to be"):
            require_apart([wrong], [], directory)


CANNOT_BE = ["--lr -1", "--lr nan", "--clip 0", "--clip nan", "--weight-decay -1", "--seed -1", "--warmup 2",
             "--lora 2 --lora-alpha 0", "--lora 2 --lora-names q_proj q_prj", "--out {base}", "--out {base}/adapter",
             "--out {base}/..", "--weights bf16", "--resume --clip 2", "--data nowhere", "--held-out nowhere"]


def test_a_run_that_cannot_be_leaves_the_model_that_was_there(learn, base, tmp_path):
    assert learn("--out", tmp_path / "out").returncode == 0
    before = contents(tmp_path)
    for words in CANNOT_BE:
        done = learn("--out", tmp_path / "out", *words.format(base=base).split())
        assert done.returncode and "Traceback" not in done.stderr, words
        assert contents(tmp_path) == before, words


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(learn, tmp_path, monkeypatch):
    real, done = train.update, []

    def breaks(*what):
        done.append(1)
        return real(*what) if len(done) < 3 else (float("nan"), 1.0)
    monkeypatch.setattr(train, "update", breaks)
    stopped = learn("--out", tmp_path / "out")
    assert stopped.returncode == 1 and "step 3: loss or weights are no longer finite" in stopped.stderr
    # the state of the second step is there
    monkeypatch.setattr(train, "update", real)
    resumed = learn("--out", tmp_path / "out", "--resume")
    assert resumed.returncode == 0 and "going on after step 2" in resumed.stdout


def test_shapes_that_nobody_could_load_are_not_trained(run_command, files, tmp_path):
    for words in (["--dim", 30, "--heads", 4], ["--dim", 12, "--heads", 4]):
        done = run_command(train.main, "--learn", "all", "--data", files, "--out", tmp_path / "x", *words)
        assert done.returncode == 1 and "heads of an even width" in done.stderr and not (tmp_path / "x").exists()


def test_a_full_disk_leaves_a_checkpoint_as_it_was(learn, run_command, base, tmp_path, small_disk):
    assert learn("--out", tmp_path / "out").returncode == 0
    before = contents(tmp_path)
    small_disk(20_000)
    for done in (learn("--out", tmp_path / "out"), run_command(convert.main, base, tmp_path / "out")):
        assert done.returncode == 1 and "unchanged" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert contents(tmp_path) == before


def test_a_kill_between_two_files_loses_neither(learn, tmp_path, monkeypatch):
    """Killed at any of the renames, what is there are whole files; the same command brings all up to date."""
    assert learn("--out", tmp_path / "out").returncode == 0
    old = load_model(tmp_path / "out").norm.weight
    real, done = Path.replace, []

    def killed(path, target):
        done.append(path)
        # the last of the files is the weights
        if path.name == "model.safetensors":
            raise KeyboardInterrupt
        return real(path, target)
    monkeypatch.setattr(Path, "replace", killed)
    assert learn("--out", tmp_path / "out", "--seed", 1).returncode == 130 and done
    monkeypatch.setattr(Path, "replace", real)
    assert (load_model(tmp_path / "out").norm.weight == old).all()
    assert learn("--out", tmp_path / "out", "--seed", 1, "--resume").returncode == 0


@pytest.mark.parametrize("words, stage", [("--out runs/tiny/corpus.jsonl", "corpus tiny/corpus"),
                                          ("", "corpus"), ("answer a=b", "corpus answer"), ("--out .", "corpus ")])
def test_a_stage_notes_its_seconds_whatever_its_arguments(words, stage, tmp_path, monkeypatch):
    monkeypatch.setenv("STAGE_SECONDS", str(tmp_path / "seconds.jsonl"))
    monkeypatch.setattr("sys.argv", ["data/harbour/corpus.py", *words.split()])
    program.run(lambda: None)
    row = json.loads((tmp_path / "seconds.jsonl").read_text())
    assert row.pop("ended") and row == {"stage": stage, "seconds": 0.0}


def test_long_names_shift_no_table():
    arm = {"overall": 0.5, "low": 0.4, "high": 0.6, "failed": 0, "categories": {"coding": 0.5},
           "groups": {}, "kinds": {}}
    pair = {"model_1": "a" * 30, "model_2": "b", "wins": 1, "ties": 1, "losses": 1, "adjusted": 0.5, "low": 0.2,
            "high": 0.8, "p": 1.0, "controlled": None, "flips": 0.5, "first": 0.5, "failed": 0}
    results = {"questions": 4, "arms": {"short": arm, "a very long name of a model": arm},
               "paired": {"x" * 40: {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.5},
                          "x": {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.5}}}
    lines = tables.arm_lines(results)
    for rows in (lines[2:5], lines[6:9], lines[-2:], tables.pair_lines([pair, pair | {"model_1": "a"}])[3:5]):
        assert len({len(row) for row in rows if row}) == 1, "\n".join(rows)
