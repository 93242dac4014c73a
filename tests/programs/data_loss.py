"""
Is anything old ever lost? Every command that writes, where it could overwrite what it reads; killed; on a full disk.

    python -m tests.programs.data_loss [SMALL]      status 1 if anything was lost

SMALL: an empty directory on a disk of about 1 MB, such as a tmpfs. Without one a limit on the size of files stands in
for the full disk.
"""

import importlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import torch

from data.api.server import serving
from data.checkpoint import save_model
from data.formats.adapter import write_adapter
from data import program
from data.program import run, to_jsonl
from model import Config, Llama, add_lora
from tests.conftest import TALKS, learn_tokenizer, record

TRAIN = "--steps 40 --precision float32 --attention fused"
# name: (module, words, whether it writes a directory); {x} is an input, OUT the output
COMMANDS = {
    "train": ("train", "--learn human --data {talks} --base {base} --held-out {held} --system {line} --out OUT "
              + TRAIN, True),
    "train --lora": ("train", "--learn gpt --data {talks} --base {base} --lora 2 --out OUT " + TRAIN, True),
    "convert": ("data.formats.convert", "{base} OUT", True),
    "convert an adapter": ("data.formats.convert", "{adapter} OUT --base {base}", True),
    "convert --to peft": ("data.formats.convert", "{adapter} OUT --to peft --base {base}", True),
    "clean": ("data.formats.clean", "{talks} {held} --rename --bench {question} --tokenizer {base} --out OUT", False),
    "files": ("data.formats.files", "{talks} --out OUT", False),
    "files --held-out": ("data.formats.files", "{talks} --share 2 --held-out OUT --out ELSEWHERE", False),
    "sampling": ("data.formats.sampling", "--like vicuna {talks} --out OUT", False),
    "simulate": ("simulate", "--user {base} --seeds {held} --intents {intents} --system {line} --teacher URL "
                 "--dialogues 3 --rounds 3 --out OUT", False),
    "stats": ("evaluate", "stats {talks} --human {held} --bench {question} --tokenizer {base} --out OUT", False),
    "score": ("evaluate", "score a --judge-model j --bench {bench} --out OUT", False),
    "card": ("evaluate", "card --user {base} --human {talks} --twin {base} --teacher URL --out OUT", False),
    "alpacaeval bench": ("data.measure.alpacaeval", "bench {tasks} --out OUT", False),
    "alpacaeval outputs": ("data.measure.alpacaeval", "outputs a --bench {bench} --out OUT", False),
}


def make_inputs(folder):
    """Write small inputs of every kind into a folder: {name: path}."""
    tokenizer = learn_tokenizer()
    torch.manual_seed(0)
    model = Llama(Config(vocab=tokenizer.vocab, dim=16, layers=1, heads=2, kv_heads=2, hidden=16, context=160))
    save_model(model, folder / "base", tokenizer)
    tokenizer.save(folder / "base")
    add_lora(model, ["q_proj"], 2, 4)
    write_adapter(model, folder / "adapter", folder / "base")
    tokenizer.save(folder / "adapter")
    talks = [record(talk, end="left") | {"id": f"{name}{n}"} for name in "ab" for n, talk in enumerate(TALKS)]
    questions = [{"question_id": n, "category": "writing", "turns": ["why?", "how?"]} for n in range(3)]
    answers = [{"question_id": n, "choices": [{"turns": ["so", "thus"]}]} for n in range(3)]
    rows = {"talks.jsonl": talks, "held.jsonl": talks[:2], "question.jsonl": questions,
            "bench/question.jsonl": questions, "bench/model_answer/a.jsonl": answers,
            "tasks.jsonl": [{"instruction": "say hi"}]}
    for name, items in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(map(to_jsonl, items)))
    (folder / "line.txt").write_text("Two sides talk.\n")
    (folder / "intents.txt").write_text("wants a boat\n")
    paths = {path.stem: path for path in folder.iterdir()}
    # the output without a suffix, beside which NAME.tmp is written
    shutil.copy(folder / "talks.jsonl", folder / "x.tmp")
    return paths


def contents(folder):
    """{path: bytes} of all files below a folder."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()}


def lost(before, folder):
    """List the files that are gone or other than before."""
    now = contents(folder)
    # what a kill leaves behind is nothing old
    unfinished = [path for path in before if ".incomplete" in path.parts or path.suffix == ".tmp" and path.stem != "x"]
    return [str(path.relative_to(folder)) for path, data in before.items()
            if now.get(path) != data and path not in unfinished]


def places(folder, paths, words):
    """Yield (relation, input, output): the output at, in, above and linked to each input of a command."""
    for name, path in paths.items():
        if f"{{{name}}}" not in words:
            continue
        links = folder.parent / "links"
        shutil.rmtree(links, ignore_errors=True)
        links.mkdir()
        (links / "soft").symlink_to(path)
        yield "equal", name, path
        yield "linked", name, links / "soft"
        yield "another spelling", name, path.parent / ".." / path.parent.name / path.name
        yield "above", name, path.parent
        if path.is_file():
            os.link(path, links / "hard")
            yield "linked hard", name, links / "hard"
            yield "inside", name, path / "new"
        else:
            for inside in sorted(path.rglob("*")):
                yield f"inside ({inside.name})", name, inside
            yield "through a link", name, links / "soft" / "config.json"
    yield "NAME.tmp", "x", folder / "x"


def words_of(words, paths, out, url="http://127.0.0.1:9/v1"):
    """List the words of a command line."""
    words = words.format(**paths).replace("ELSEWHERE", str(out) + ".elsewhere").replace("OUT", str(out))
    return words.replace("URL", url).split()


def in_this_process(module, words):
    """Run a command in this process; return its status and what it printed on stderr."""
    main = importlib.import_module(module).main
    before, sys.argv = sys.argv, [module, *words]
    errors = io.StringIO()
    status = 0
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(errors):
            run(main)
    except SystemExit as error:
        status = error.code or 0
    finally:
        sys.argv = before
    return status, errors.getvalue() if isinstance(status, int) else status


def at_each_place(folder):
    """Run every command with its output at every place; return the failures."""
    failures, tried, refused = [], 0, 0
    for command, (module, words, _) in COMMANDS.items():
        work = folder / "work"
        paths = make_inputs(work)
        for relation, name, out in places(work, paths, words):
            if relation == "NAME.tmp":
                paths = paths | {"talks": work / "x.tmp"}
                if "{talks}" not in words:
                    continue
            before = contents(work)
            status, error = in_this_process(module, words_of(words, paths, out))
            tried += 1
            refused += status != 0
            gone = lost(before, work)
            if gone or "Traceback" in str(error):
                failures.append(f"{command}: output {relation} {name}: lost {gone} {error}")
        shutil.rmtree(work)
    print(f"{tried} outputs equal to, inside, above or linked to an input: {refused} refused, {len(failures)} lost")
    return failures


def in_a_fork(module, words, prepare):
    """Run prepare() and a command in a copy of this process: (exit status or -signal, what it printed on stderr)."""
    importlib.import_module(module)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        prepare()
        status, error = in_this_process(module, words)
        os.write(writing, str(error).encode()[:60_000])
        os._exit(status if isinstance(status, int) else 1)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        error = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), error


def die(*what, **more):
    os.kill(os.getpid(), signal.SIGKILL)


class Half:
    """A file that gets half of what is written first, and then the process is killed."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *what):
        return self.file.__exit__(*what)

    def writelines(self, texts):
        self.write(next(iter(texts)))

    def write(self, data):
        self.file.write(data[:len(data) // 2])
        self.file.flush()
        die()


def die_at(moment):
    """Have this process killed as it opens a file to write, has written half of it, or renames it."""
    opened = program.open_for_writing
    if moment == "open":
        program.open_for_writing = die
    elif moment == "write":
        program.open_for_writing = lambda *what: Half(opened(*what))
    else:
        Path.replace = die


def killed(folder, url):
    """Kill every command at three moments while an older output is there; return the failures."""
    failures, kills = [], 0
    for command, (module, words, directory) in COMMANDS.items():
        if command in ("score", "card", "alpacaeval outputs"):
            # they write as stats does, and need judgments
            continue
        work = folder / "work"
        paths = make_inputs(work)
        out = work / "old"
        if directory:
            shutil.copytree(paths["adapter" if "peft" in command else "base"], out)
        else:
            out.write_text("old\n")
        for moment in ("open", "write", "rename"):
            before = contents(work)
            status, error = in_a_fork(module, words_of(words, paths, out, url), partial(die_at, moment))
            kills += status == -signal.SIGKILL
            gone = lost(before, work)
            if gone or status != -signal.SIGKILL:
                failures.append(f"{command}, killed at {moment}: lost {gone}, {status} {error[-300:]}")
        shutil.rmtree(work)
    print(f"killed {kills} times, as files are opened, half written, and renamed: {len(failures)} failures")
    return failures


def on_a_full_disk(folder, small, url):
    """Run every command on a disk that is nearly full while an older output is there; return the failures."""
    failures, full = [], 0
    for command, (module, words, directory) in COMMANDS.items():
        if command in ("score", "card", "alpacaeval outputs"):
            continue
        work = folder / "work"
        paths = make_inputs(work)
        disk = small or folder / "disk"
        shutil.rmtree(disk / "old", ignore_errors=True)
        for path in disk.glob("*"):
            path.unlink()
        disk.mkdir(exist_ok=True)
        out = disk / "old"
        if directory:
            shutil.copytree(paths["adapter" if "peft" in command else "base"], out)
        else:
            out.write_text("old\n")
        limit = str
        if small:
            filler = open(disk / "filler", "wb", buffering=0)
            try:
                while filler.write(b"x" * 512):
                    pass
            except OSError:
                filler.close()
        else:
            limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        before = contents(disk) | contents(work)
        status, error = in_a_fork(module, words_of(words, paths, out, url), limit)
        full += status != 0
        now = contents(disk) | contents(work)
        changed = [str(path) for path in now if now[path] != before.get(path) and not str(path).endswith(".elsewhere")]
        gone = [str(path) for path in before if path not in now]
        sentence = [line for line in error.splitlines() if line.strip()]
        journal = [path for path in changed if path.endswith(".journal")]
        if gone or set(changed) - set(journal) or status == 0 or len(sentence) != 1:
            failures.append(f"{command}, disk full: lost {gone}, new {changed}, status {status}: {error[-600:]}")
        else:
            print(f"    {command}: {sentence[0].replace(str(disk), 'DISK')[:150]}")
        shutil.rmtree(work)
    kind = "a disk without room" if small else "a limit on the size of files"
    print(f"{full} commands on {kind}: {len(failures)} failures")
    return failures


def main():
    small = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder, serving(lambda messages: "so it is.") as url:
        folder = Path(folder)
        failures = at_each_place(folder)
        sys.stdout.flush()
        failures += killed(folder, url)
        failures += on_a_full_disk(folder, small, url)
    print("\n".join(failures))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
