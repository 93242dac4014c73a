"""What reaches the loss, one update, and a run that is killed."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import model as m
import platolm
import train
from data.checkpoint import save_model, load_model
from data.distributed import SingleProcess
from data.muon import newton_schulz
from model import add_lora, nll
from data.program import UserError, to_jsonl
from platolm import IGNORE, LABEL, SYSTEM, Tokenizer, turns, read_records
from train import Hyperparameters, batches, endless_batches, load_samples, pad, to_sample, update

close = torch.testing.assert_close


# ------------------------------------------------------------------------------------------------
# the mask is the paper


def said_by(role, made, tokenizer):
    """
    What should be learnt from a record, found without any mask: for every token that `role` said
    and every end of its turns, all the ids before it and the id itself.
    """
    pairs, before, system = [], [tokenizer.bos], SYSTEM
    for turn in turns(made):
        before = before + tokenizer.encode(system + LABEL[turn["from"]]) + [tokenizer.bos]
        system = ""
        for token in tokenizer.encode(turn["value"]) + [tokenizer.eos]:
            if turn["from"] == role:
                pairs.append((before, token))
            before = before + [token]
    return pairs


class Descent:
    """Plain gradient descent (the first optimizer of torch's own takes seconds to import)."""

    def __init__(self, parameters, lr):
        self.parameters, self.lr = list(parameters), lr

    @torch.no_grad()
    def step(self):
        for p in self.parameters:
            p -= self.lr * p.grad

    def zero_grad(self, set_to_none=True):
        for p in self.parameters:
            p.grad = None


@pytest.mark.exercise(7)
@pytest.mark.parametrize("role", ["human", "gpt"])
def test_the_loss_of_an_update_is_that_of_what_the_role_said_and_of_nothing_else(
        make_model, tokenizer, files, records, role, monkeypatch):
    """From the file to the number that is minimised, against one slow prediction at a time."""
    model = make_model()
    pairs = [pair for made in records for pair in said_by(role, made, tokenizer)]
    slow = [-model(torch.tensor([before]))[0, -1].log_softmax(-1)[token] for before, token in pairs]

    # what arrives at the cross entropy, as text
    arrived = []
    entropy = F.cross_entropy
    monkeypatch.setattr(m.F, "cross_entropy", lambda logits, targets, **how: (
        arrived.extend(targets.tolist()), entropy(logits, targets, **how))[1])

    samples = load_samples([files], tokenizer, role, 160)
    batch = next(endless_batches([len(i) for i, _ in samples], 4096, seed=0))
    optimizer = [Descent(model.parameters(), lr=0.0)]
    loss, _ = update(model, optimizer, [pad([samples[i] for i in batch])])

    assert sorted(arrived) == sorted(token for _, token in pairs), (
        f"the loss should see {tokenizer.decode(sorted(t for _, t in pairs))!r}\n"
        f"but it sees      {tokenizer.decode(sorted(arrived))!r}")
    close(loss, torch.stack(slow).mean().item(), rtol=1e-4, atol=1e-4)


def test_cutting_the_tail_changes_no_gradient(make_model, tokenizer, records):
    """Computing to the end of the dialogue, assistant's last words included, teaches the same."""
    model = make_model()
    for made in records:
        inputs, targets, _ = to_sample(made, tokenizer, "human", 160)
        full = train.shift(*train.encode(turns(made), tokenizer, "human"))
        assert len(inputs) <= len(full[0]) and targets[-1] != IGNORE
        grads = []
        for sample in ((inputs, targets), full):
            model.zero_grad()
            nll(model, *pad([sample])).sum().backward()
            grads.append([p.grad.clone() for p in model.parameters()])
        close(*grads, rtol=1e-4, atol=1e-5)


def test_too_long_is_cut_by_whole_rounds_and_too_long_to_cut_is_dropped(tokenizer, records, files):
    made = records[1]
    whole, _, cut = to_sample(made, tokenizer, "gpt", 160)
    assert not cut
    inputs, targets, cut = to_sample(made, tokenizer, "gpt", len(whole) - 1)
    shorter = {**made, "conversations": made["conversations"][:4], "end": "cut"}
    assert (inputs, targets) == to_sample(shorter, tokenizer, "gpt", 160)[:2] and cut
    assert to_sample(made, tokenizer, "gpt", 12)[:2] == ([], [])
    with pytest.raises(UserError, match="nothing to learn"):
        load_samples([files], tokenizer, "gpt", 12)


def test_a_dialogue_of_many_turns_is_encoded_once(tokenizer, monkeypatch):
    encoded = []
    monkeypatch.setattr(train, "encode", lambda *what: encoded.append(1) or platolm.encode(*what))
    said = [{"from": ("human", "gpt")[i % 2], "value": f"number {i}"} for i in range(201)]
    whole = lambda size: to_sample({"conversations": said[:size]}, tokenizer, learn, 10 ** 9)[:2]
    for learn in ("human", "gpt", "all"):
        for length in (200, 201):
            *sample, cut = to_sample({"conversations": said[:length]}, tokenizer, learn, 160)
            # as many whole rounds as fit, and what the shorter dialogue gives by itself
            kept = next(size for size in range(length, 0, -2) if len(whole(size)[0]) <= 160)
            assert cut and tuple(sample) == whole(kept) and len(sample[0]) <= 160
    encoded.clear()
    whole(201)
    assert len(encoded) == 1


def test_nothing_is_lost_in_silence(tokenizer, files, capsys):
    longest = max(len(inputs) for inputs, _ in load_samples([files], tokenizer, "gpt", 160))
    samples = load_samples([files], tokenizer, "gpt", longest - 1)
    said = capsys.readouterr().out
    assert len(samples) == 3 and "1 cut to" in said and "0 left out with nothing" in said
    made = next(read_records(files))
    marked = made | {"conversations": [turn | {"weight": 0} for turn in made["conversations"]], "system": "be brief"}
    files.write_text(to_jsonl(made) + to_jsonl(marked))
    assert len(load_samples([files], tokenizer, "gpt", 160)) == 1
    said = capsys.readouterr().out
    assert "4 turns are read but not learnt" in said and "1 dialogues have a system line" in said


def test_plain_text_is_for_the_base_alone(tokenizer, tmp_path):
    (tmp_path / "text").write_text('{"id": "1", "text": "the sea is wide"}\n')
    (inputs, targets), = load_samples([tmp_path / "text"], tokenizer, "all", 50)
    words = tokenizer.encode("the sea is wide")
    assert inputs == [tokenizer.bos] + words and targets == words + [tokenizer.eos]
    assert to_sample({"text": "the sea is wide"}, tokenizer, "all", 2) == (inputs[:2], words[:2], True)
    with pytest.raises(UserError, match="for --learn all"):
        load_samples([tmp_path / "text"], tokenizer, "gpt", 50)


def test_a_blind_user_learns_the_same_words_and_hears_none(tokenizer, files):
    sees = load_samples([files], tokenizer, "human", 160)
    blind = load_samples([files], tokenizer, "human", 160, blind=True)
    for (heard, learnt), (deaf, same), made in zip(sees, blind, read_records(files)):
        words = lambda targets: [token for token in targets if token != IGNORE]
        assert words(learnt) == words(same)
        text = tokenizer.decode(deaf)
        for turn in made["conversations"]:
            assert (turn["value"] in text) == (turn["from"] == "human"), text


# ------------------------------------------------------------------------------------------------
# batches and updates


def test_batches_hold_every_sample_once_within_the_budget_and_little_padding():
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 250, size=3000).tolist()
    found = batches(lengths, 2048, rng)
    assert sorted(i for batch in found for i in batch) == list(range(3000))
    sizes = [len(batch) * max(lengths[i] for i in batch) for batch in found]
    # what one leaves over the next may use: the same on average, whatever the lengths
    assert max(sizes) < 2048 + 250 and 1 - sum(lengths) / sum(sizes) < 0.05
    assert 0.98 < np.mean(sizes) / 2048 <= 1


def test_a_sample_larger_than_the_budget_gets_a_batch_of_its_own():
    found = batches([5, 300, 5], 100, np.random.default_rng(0))
    assert [1] in found and sorted(map(len, found)) == [1, 2]


def test_the_stream_is_a_function_of_the_seed():
    lengths = list(range(1, 60))
    take = lambda seed: [batch for _, batch in zip(range(30), endless_batches(lengths, 100, seed))]
    assert take(1) == take(1) != take(2)


@pytest.mark.exercise(7)
def test_two_updates_are_those_of_torchs_own_mean_over_one_big_batch(make_model, tokenizer, files):
    """Over the targets of all samples, one gradient clipped once, nothing left over for the second update."""
    samples = load_samples([files], tokenizer, "human", 160)
    ours, theirs = make_model(), make_model()
    layers, rest = [], []
    for name, p in ours.named_parameters():
        (layers if name.startswith("layers.") else rest).append(p)
    optimizers = [Descent(part, lr=0.1) for part in (layers, rest)]
    reference = Descent(theirs.parameters(), lr=0.1)
    ids, targets = pad(samples)
    for number in ("first", "second"):
        got = update(ours, optimizers, [pad(samples[:2]), pad(samples[2:])], clip=0.5)
        mean = F.cross_entropy(theirs(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
        mean.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step(), reference.zero_grad()
        assert [type(value) for value in got] == [float, float], "loss and norm are Python's floats"
        close(got, (mean.item(), norm.item()), rtol=1e-4, atol=1e-5, msg=lambda text: (
            f"loss and norm of the {number} update: expected {mean.item():.4f}, {norm.item():.4f}; got {got}"))
        close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=1e-4, atol=1e-5,
              msg=lambda text: f"after the {number} update the weights differ: {text}")
    assert all(p.grad is None for p in ours.parameters()), "gradients are left for the next update"


class Twins(SingleProcess):
    """Two processes, of which the other one has the same micro-batches."""

    def sum_over(self, value):
        return 2 * value

    def sum_gradients(self, model):
        for p in model.parameters():
            p.grad *= 2


@pytest.mark.exercise(7)
def test_the_targets_of_all_processes_are_one_update(make_model, tokenizer, files):
    """Each sample twice, once in each process, teaches what it teaches once."""
    samples = load_samples([files], tokenizer, "gpt", 160)
    close(one_update(make_model(), samples, ranks=Twins()), one_update(make_model(), samples), rtol=1e-4, atol=1e-5,
          msg=lambda text: f"with the same micro-batches in two processes, the update is another: {text}")


@pytest.mark.exercise(7)
def test_two_micro_batches_equal_one(make_model, tokenizer, files):
    """Also when they differ in how much is learnt, as they always do."""
    samples = load_samples([files], tokenizer, "human", 160)
    results = []
    for cut in ([samples], [samples[:1], samples[1:]], [[s] for s in samples]):
        model = make_model()
        optimizer = [Descent(model.parameters(), lr=0.1)]
        loss, norm = update(model, optimizer, [pad(part) for part in cut])
        results.append([torch.tensor([loss, norm])] + [p.data for p in model.parameters()])
    close(results[0], results[1], rtol=1e-4, atol=1e-5)
    close(results[0], results[2], rtol=1e-4, atol=1e-5)


def one_update(model, samples, **how):
    optimizer = [Descent(model.parameters(), lr=0.1)]
    loss, norm = update(model, optimizer, [pad(samples)], **how)
    return {"loss": torch.tensor(loss), "norm": torch.tensor(norm), **model.state_dict()}


def test_computing_twice_instead_of_remembering_changes_nothing(make_model, tokenizer, files):
    samples, model = load_samples([files], tokenizer, "human", 160), make_model()
    model.recompute = True
    close(one_update(model, samples), one_update(make_model(), samples), rtol=0, atol=1e-6)


def test_a_compiled_layer_computes_the_same(make_model, tokenizer, files):
    """Whether the layers can be traced, and at any length; not what a compiler makes of that."""
    samples, model = load_samples([files], tokenizer, "human", 160), make_model()
    for layer in model.layers:
        layer.compile(backend="eager", dynamic=True)
    close(one_update(model, samples[:1]), one_update(make_model(), samples[:1]), rtol=0, atol=1e-6)
    assert not any("orig" in name for name in model.state_dict())


def test_updates_of_so_many_samples_hold_each_once_an_epoch():
    lengths = list(range(20, 90))
    hp = Hyperparameters(samples=16, tokens=300, seed=1)
    stream = train.update_batches(lengths, hp)
    epochs = [[next(stream) for _ in range(4)] for _ in range(2)]
    for epoch in epochs:
        used = [i for picked in epoch for batch in picked for i in batch]
        assert len(used) == len(set(used)) == 64 and all(sum(map(len, picked)) == 16 for picked in epoch)
        assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) < 300 + 90
                   for picked in epoch for batch in picked)
    assert epochs[0] != epochs[1] and train.count_steps(3, lengths, hp) == 12
    hp = Hyperparameters(tokens=300, seed=1, accumulate=2)
    n = len(batches(lengths, 300, np.random.default_rng([1, 0])))
    assert train.count_steps(3, lengths, hp) == 3 * n // 2


def test_half_precision_weights_learn_and_loras_stay_exact(make_model, tokenizer, files):
    samples = load_samples([files], tokenizer, "human", 160)
    model = make_model().bfloat16()
    optimizer = train.make_optimizers(model, "adamw", 1e-2, 0.0)
    losses = [update(model, optimizer, [pad(samples)], "bf16")[0] for _ in range(8)]
    state = next(iter(optimizer[0].state.values()))
    assert losses[-1] < losses[0] and state["exp_avg"].dtype == torch.bfloat16
    model = make_model().bfloat16()
    add_lora(model, ["q_proj"], 4, 8)
    optimizer = train.make_optimizers(model, "adamw", 1e-2, 0.0)
    losses = [update(model, optimizer, [pad(samples)], "bf16")[0] for _ in range(8)]
    assert losses[-1] < losses[0] and model.layers[0].self_attn.q_proj.A.dtype == torch.float32


def test_lora_trains_and_leaves_the_rest_alone(make_model, tokenizer, files):
    model, before = make_model(), make_model().state_dict()
    add_lora(model, ["q_proj", "up_proj"], 4, 8)
    samples = load_samples([files], tokenizer, "gpt", 160)
    optimizer = train.make_optimizers(model, "adamw", 1e-2, 0.0)
    losses = [update(model, optimizer, [pad(samples)])[0] for _ in range(8)]
    assert losses[-1] < losses[0]
    after = m.merge_lora(model).state_dict()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "up_proj"}


def test_an_orthogonal_step_goes_as_far_in_every_direction():
    torch.manual_seed(0)
    for shape in ((4, 24, 24), (2, 24, 60), (3, 60, 24)):
        u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        made = newton_schulz(u * torch.linspace(0.05, 1, 24) @ v)
        # the same directions, all about as long as one
        lengths = (u.mT @ made @ v.mT).diagonal(dim1=1, dim2=2)
        assert 0.6 < lengths.min() and lengths.max() < 1.3
        close(made, u * lengths[:, None] @ v, rtol=0, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_muon_is_torchs_own():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((16, 24), (16, 24), (8, 8))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    mine = train.Muon(ours, 0.02, 0.1)
    other = torch.optim.Muon(theirs, 0.02, 0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs):
            q.grad = p.grad = torch.randn_like(p)
        before = [p.detach().clone() for p in ours]
        mine.step(), other.step()
        for p, q, was in zip(ours, theirs, before):
            # theirs multiplies in bfloat16
            assert F.cosine_similarity((p - was).flatten(), (q - was).flatten(), dim=0) > 0.995


@pytest.mark.exercise(32)
@pytest.mark.parametrize("steps, peak, warmup, expected", [
    (10, 1.0, 4, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 6: 0.75, 7: 0.5, 8: 0.25}),
    (10, 0.2, 4, {0: 0.05, 7: 0.1}),
    # no warm-up, and one that ends between two steps
    (12, 2.0, 0, {0: 2, 4: 1.5, 6: 1, 8: 0.5}), (8, 1.0, 2.5, {0: 0.4, 1: 0.8, 2: 1})])
def test_the_rate_by_hand(steps, peak, warmup, expected):
    for step, rate in expected.items():
        got = train.learning_rate(step, steps, peak, warmup)
        assert got == pytest.approx(rate), f"step {step} of {steps}, {warmup} to warm up: expected {rate}, got {got}"


@pytest.mark.exercise(32)
def test_the_rate_climbs_then_falls_to_nothing():
    rates = [train.learning_rate(step, 100, 1.0, 10) for step in range(100)]
    assert rates[0] == 0.1 and max(rates) == rates[10] == 1.0 and rates[99] < 0.001
    # also where the steps that climb are no whole number
    assert all(max(train.learning_rate(step, n, 1.0, 0.03 * n) for step in range(n)) <= 1 for n in range(1, 300))
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_held_out_loss_is_the_mean_over_tokens(make_model, tokenizer, files):
    model, samples = make_model(), load_samples([files], tokenizer, "human", 160)
    alone = torch.cat([nll(model, *pad([s])) for s in samples])
    close(train.held_out_loss(model, samples, 100), alone.mean().item(), rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------
# whole runs


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_goes_on_to_the_same_end(
        make_model, tokenizer, files, tmp_path, monkeypatch, optimizer):
    hp = Hyperparameters(steps=8, tokens=150, accumulate=2, optimizer=optimizer, lr=1e-2, warmup=0.1,
                         weight_decay=0.1, seed=3)
    samples = load_samples([files], tokenizer, "human", 160)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = make_model()
    log = train.train(whole, samples, None, hp, tmp_path / "a", {}, resume=True)

    # killed in its eighth update, when that of the seventh is on disk
    real, done = train.update, []
    def dies(*what):
        if len(done) == 7:
            raise Killed
        done.append(1)
        return real(*what)
    monkeypatch.setattr(train, "update", dies)
    with pytest.raises(Killed):
        train.train(make_model(), samples, None, hp, tmp_path / "b", {}, resume=True)
    monkeypatch.setattr(train, "update", real)
    again = make_model()
    relog = train.train(again, samples, None, hp, tmp_path / "b", {}, resume=True)
    assert relog == log
    close(dict(again.state_dict()), dict(whole.state_dict()), rtol=0, atol=0)


def test_another_run_does_not_go_on_with_this_ones_state(make_model, files, tmp_path):
    path, model = tmp_path / "train_state.pt", make_model()
    optimizers = train.make_optimizers(model, "adamw", 1e-3, 0)

    def settings(*changes):
        args = train.arguments(["--learn", "human", "--data", str(files), "--out", str(tmp_path), *changes])
        return train.run_settings(args, [files])
    train.save_state(path, settings(), model, optimizers, [])
    assert train.load_state(path, settings("--resume"), model, optimizers) == []
    with pytest.raises(UserError, match=r"other lr .*, seed .*; delete it"):
        train.load_state(path, settings("--lr", "1e-4", "--seed", "5"), model, optimizers)
    path.write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        train.load_state(path, settings(), model, optimizers)


@pytest.fixture
def command(run_command):
    return partial(run_command, train.main)


def test_the_command_line_from_random_weights_to_a_fine_tuned_checkpoint(command, files, tmp_path):
    forms = ["--precision", "float32", "--attention", "fused"]
    done = command("--learn", "all", "--data", files, "--out", tmp_path / "base", "--steps", 3, "--vocab", 400,
                   "--dim", 24, "--layers", 1, "--hidden", 32, "--held-out", files, "--resume", *forms)
    assert done.returncode == 0 and "held-out loss" in done.stdout, done.stderr
    done = command("--learn", "human", "--data", files, "--base", tmp_path / "base", "--out",
                   tmp_path / "socratic", "--steps", 2, "--lora", 2, *forms)
    assert done.returncode == 0 and "LoRA of rank 2 on 4 matrices" in done.stdout, done.stderr
    assert load_model(tmp_path / "socratic").config.dim == 24
    assert (tmp_path / "socratic" / "adapter" / "adapter_config.json").exists()
    assert not (tmp_path / "socratic" / "train_state.pt").exists()
    again = ("--learn", "human", "--data", files, "--base", tmp_path / "base", "--out", tmp_path / "socratic",
             "--steps", 2, *forms)
    done = command(*again, "--resume")
    assert done.returncode == 1 and "other lora (2 there, None here); it is finished" in done.stderr
    # without --resume it is another model, and the adapter of the first is no longer there
    assert command(*again).returncode == 0 and not (tmp_path / "socratic/adapter/adapter_config.json").exists()
    done = command(*again, "--resume")
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
    files.touch()
    done = command("--learn", "human", "--data", files, "--base", tmp_path / "base", "--out",
                   tmp_path / "socratic", "--steps", 2, "--resume", *forms)
    assert done.returncode == 0 and "nothing to do" not in done.stdout, "the data are newer"


def test_the_papers_way_by_command(command, make_model, tokenizer, files, tmp_path):
    """Its template and mask, its epochs and batches, a base in half precision, LoRA beside it."""
    save_model(make_model(tied=False).half(), tmp_path / "base")
    tokenizer.save(tmp_path / "base")
    (tmp_path / "line.txt").write_text("Two sides talk.\n")
    words = ["--learn", "human", "--data", files, "--base", tmp_path / "base", "--out", tmp_path / "out",
             "--template", "phoenix", "--mask", "compat", "--epochs", 3, "--samples", 2, "--lora", 2, "--precision",
             "bf16", "--attention", "fused", "--activation-checkpointing", "--weights", "bf16"]
    done = command(*words)
    assert done.returncode == 1 and "--system FILE" in done.stderr and len(done.stderr.splitlines()) == 1
    done = command(*words, "--system", tmp_path / "line.txt")
    assert done.returncode == 0 and "step      3/3" in done.stdout, done.stderr
    assert load_model(tmp_path / "out").norm.weight.dtype == torch.float16
    back = Tokenizer.load(tmp_path / "out")
    assert (back.system, back.speaker) == ("Two sides talk.\n\n", "human")
    page = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert page["r"] == 2 and page["base_model_name_or_path"] == str(tmp_path / "base")
    # per turn a token more is learnt than here, and nothing else
    compat, ours = (load_samples([files], back, "human", 160, False, compat) for compat in (True, False))
    count = lambda samples: sum(target != IGNORE for _, targets in samples for target in targets)
    human_turns = sum(turn["from"] == "human" for made in read_records(files) for turn in turns(made))
    assert count(compat) - count(ours) == human_turns


@pytest.mark.parametrize("words, said", [
    (["--data", "{files}", "--samples", "9"], "3 samples are too few for an update"),
    (["--data", "nowhere.jsonl"], "train.py: nowhere.jsonl: No such file or directory"),
    (["--data", "{files}", "--base", "nowhere"], "nowhere/config.json: No such file"),
])
def test_trouble_is_one_sentence(command, files, tmp_path, words, said):
    done = command("--learn", "gpt", "--out", tmp_path / "x", "--precision", "float32", "--attention",
                   "fused", *[word.format(files=files) for word in words])
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
