"""The network against torch's own functions, and every fast path against its slow twin."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import model as m
from data.checkpoint import load_model, read_safetensors, save_model, weight_file, write_safetensors
from model import Cache, Config, Engine, add_lora, generate, generate_batch, merge_lora, nll, sample
from data.program import UserError
from platolm import IGNORE

close = torch.testing.assert_close


def tokens(model, *shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.config.vocab, shape, generator=rng)


# ------------------------------------------------------------------------------------------------
# the parts


def test_rmsnorm_is_torchs():
    norm, x = m.RMSNorm(8, 1e-5), torch.randn(2, 3, 8)
    norm.weight.data.uniform_(0.5, 2)
    close(norm(x), F.rms_norm(x, (8,), norm.weight, 1e-5))


def test_rotation_keeps_lengths_and_sees_only_distances():
    config, x = Config(dim=16, heads=2), torch.randn(2, 1, 1, 8)
    at = lambda i: m.rotary(torch.tensor([i]), config)
    q, k = x
    close(m.rotate(x, at(7)).norm(dim=-1), x.norm(dim=-1))
    near = (m.rotate(q[None], at(5)) * m.rotate(k[None], at(3))).sum()
    far = (m.rotate(q[None], at(95)) * m.rotate(k[None], at(93))).sum()
    close(near, far)
    assert (near - (q * k).sum()).abs() > 1e-3


@pytest.mark.parametrize("K", [1, 2, 4])
def test_explicit_attention_is_torchs(K):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, K, 7, 8), torch.randn(2, K, 7, 8)
    seen = torch.ones(5, 7, dtype=torch.bool).tril(2)
    close(m.eager(q, k, v, seen), m.sdpa(q, k, v, seen))
    close(m.eager(q, k[:, :, :5], v[:, :, :5], None), m.sdpa(q, k[:, :, :5], v[:, :, :5], None))


def test_nothing_looks_ahead(make_model):
    model = make_model()
    ids = tokens(model, 1, 12)
    other = ids.clone()
    other[0, 8:] = tokens(model, 4, seed=1)
    close(model(ids)[:, :8], model(other)[:, :8])


def test_nll_is_cross_entropy_at_the_learnt_positions(make_model):
    model = make_model()
    ids, targets = tokens(model, 3, 9), tokens(model, 3, 9, seed=1)
    targets[0, :5] = targets[2, 2:] = IGNORE
    everywhere = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="none")
    close(nll(model, ids, targets), everywhere[targets.flatten() != IGNORE])


# ------------------------------------------------------------------------------------------------
# LoRA


def test_lora_changes_nothing_at_first_trains_only_itself_and_equals_its_merge(make_model):
    model = make_model()
    ids, plain = tokens(model, 2, 9), make_model()
    assert add_lora(model, ["q_proj", "down_proj"], rank=3, alpha=6) == 4
    close(model(ids), plain(ids))
    assert {name.split(".")[-1] for name, p in model.named_parameters() if p.requires_grad} == {"A", "B"}
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data.normal_()
    changed = model(ids)
    assert (changed - plain(ids)).abs().max() > 0.1
    close(merge_lora(model)(ids), changed, rtol=1e-4, atol=1e-4)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_lora_is_scaled_by_alpha_over_rank():
    linear = torch.nn.Linear(4, 5, bias=False)
    wrapped = m.LoRALinear(linear, rank=2, alpha=6)
    wrapped.B.data.normal_()
    x = torch.randn(4)
    close(wrapped(x), linear(x) + 3 * (wrapped.B @ (wrapped.A @ x)))


def test_lora_on_nothing_is_a_problem(make_model):
    with pytest.raises(UserError, match="called w_proj"):
        add_lora(make_model(), ["w_proj"], 2, 2)
    with pytest.raises(UserError, match="tied"):
        add_lora(make_model(), ["lm_head"], 2, 2)


# ------------------------------------------------------------------------------------------------
# sampling


def test_sample_follows_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    u = (torch.arange(4000) + 0.5) / 4000
    tokens = sample(logits.expand(4000, 4), u[:, None], temperature=0.7)[:, 0]
    counts = tokens.bincount(minlength=4) / 4000
    close(counts, (logits[0] / 0.7).softmax(-1), atol=1e-3, rtol=0)


def kept(logits, **how):
    """Which tokens can be drawn at all."""
    u = torch.linspace(0, 1 - 1e-7, 2000)
    return set(sample(logits, u[None], **how)[0].tolist())


def test_top_k_and_top_p_by_hand():
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    assert kept(logits, top_k=2) == {1, 3}
    # the token that crosses p stays
    assert kept(logits, top_p=0.6) == {1, 3}
    assert kept(logits, top_p=0.8) == {1, 3}
    assert kept(logits, top_p=0.81) == {0, 1, 3}
    assert kept(logits, top_p=0.0) == {1}
    assert kept(logits, top_p=0.9, top_k=1) == {1}
    assert kept(logits, temperature=0) == {1}


def test_the_end_of_the_unit_interval_stays_among_what_is_kept():
    logits = torch.tensor([[1.0, 2.0, -torch.inf, -torch.inf]])
    almost = torch.tensor([[1 - 2 ** -53]], dtype=torch.float64)
    assert sample(logits, almost).item() == 1
    assert sample(logits, almost, top_p=0.99).item() in (0, 1)
    assert sample(logits, torch.tensor([[0.0]])).item() == 0


# ------------------------------------------------------------------------------------------------
# the cache and the engine


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("cuts", [[1] * 9, [9], [4, 5], [2, 1, 6]])
def test_reading_with_a_cache_is_reading_without(make_model, cuts, attention):
    model = make_model()
    model.attend = m.ATTENTION[attention]
    ids, cache = tokens(model, 2, 9), Cache(model, 2)
    parts = []
    for part in ids.split(cuts, dim=1):
        parts.append(model.last_hidden(part, cache))
        cache.lengths += part.size(1)
    close(torch.cat(parts, dim=1), model.last_hidden(ids), rtol=1e-4, atol=1e-4)


def test_ragged_rows_read_as_if_alone(make_model):
    model = make_model(context=20)
    ids, cache = tokens(model, 3, 20), Cache(model, 3)
    # row by row, uneven pieces, some rows missing, padding beyond the end of the context
    for rows, counts in [([0, 1, 2], [5, 2, 1]), ([2, 0], [6, 1]), ([0, 1, 2], [14, 3, 1]),
                         ([1, 2], [15, 12])]:
        begin = [int(cache.lengths[r]) for r in rows]
        T = max(counts)
        part = torch.stack([F.pad(ids[r, b:b + n], (0, T - n)) for r, b, n in zip(rows, begin, counts)])
        out = model.last_hidden(part, cache, torch.tensor(rows))
        for i, (r, b, n) in enumerate(zip(rows, begin, counts)):
            close(out[i, :n], model.last_hidden(ids[r:r + 1, :b + n])[0, b:], rtol=1e-4, atol=1e-4)
            cache.lengths[r] += n
    assert cache.lengths.tolist() == [20, 20, 20]


def prompts_for(model, n):
    return [tokens(model, length, seed=length).tolist() for length in range(3, 3 + n)]


@pytest.mark.parametrize("slots, chunk", [(1, 512), (3, 512), (7, 2)])
@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}])
def test_a_batch_writes_what_each_row_writes_alone(make_model, slots, chunk, how):
    model = make_model()
    prompts = prompts_for(model, 7)
    draws = [np.random.default_rng([1, i]).random for i in range(7)]
    rows = generate_batch(model, prompts, [2, 3, 4, 5], 12, slots, draws, chunk=chunk, **how)
    for i, (row, ids) in enumerate(zip(rows, prompts)):
        alone = generate(model, ids, [2, 3, 4, 5], 12, np.random.default_rng([1, i]).random, **how)
        assert (row.output, row.finish_reason) == alone


def test_many_rows_of_many_lengths_look_in_groups(make_model):
    """Forty rows, none as long as another: each group reads no further than its longest."""
    model = make_model()
    prompts = [ids for _, ids in sorted(enumerate(prompts_for(model, 40)), key=lambda pair: pair[0] * 7 % 40)]
    rows = generate_batch(model, prompts, [2, 3], 6, 40, temperature=0)
    alone = [generate(model, ids, [2, 3], 6, temperature=0) for ids in prompts]
    assert [(row.output, row.finish_reason) for row in rows] == alone


@pytest.mark.parametrize("near", [0.0, 0.6])
def test_where_rounding_could_decide_the_row_is_read_alone(make_model, monkeypatch, near):
    """With a margin so wide that every draw is in doubt, each is drawn as if nothing else were there."""
    model, alone = make_model(), []
    monkeypatch.setattr(m, "TIE_MARGIN", near)
    prompts = prompts_for(model, 5)
    draws = [np.random.default_rng([1, i]).random for i in range(5)]
    engine_alone = Engine.recompute_uncached
    monkeypatch.setattr(Engine, "recompute_uncached", lambda *what: alone.append(1) or engine_alone(*what))
    rows = generate_batch(model, prompts, [2], 6, 5, draws, temperature=1.0)
    for i, (row, ids) in enumerate(zip(rows, prompts)):
        uniform = np.random.default_rng([1, i]).random
        assert (row.output, row.finish_reason) == generate(model, ids, [2], 6, uniform, temperature=1.0)
    assert len(alone) == (0 if near == 0 else sum(len(row.output) + (row.finish_reason == "stop") for row in rows))


def test_a_draw_on_the_border_is_settled_alone(make_model):
    """u exactly where one token ends and the next begins, as the row alone computes it: any batch agrees."""
    model, ids = make_model(), [1, 7, 9]
    reach = model(torch.tensor([ids]))[0, -1].detach().softmax(-1).cumsum(-1)
    border = float(reach[20] / reach[-1])
    want = generate(model, ids, [], 1, lambda: border, temperature=1.0)[0]
    others = prompts_for(model, 6)
    for count in range(7):
        engine = Engine(model, 7, temperature=1.0)
        rows = [engine.add_row() for _ in range(count + 1)]
        for row, text in zip(rows, [ids, *others]):
            engine.start(row, text, [], 1, lambda: border)
        while any(row.busy for row in rows):
            engine.step()
        assert rows[0].output == want


def test_a_row_that_joins_late_is_as_one_that_began_early(make_model):
    model = make_model()
    engine, (first, second) = Engine(model, 4, temperature=0), prompts_for(model, 2)
    a = engine.add_row()
    engine.start(a, first, [], 9)
    for _ in range(4):
        engine.step()
    b = engine.add_row()
    engine.start(b, second, [], 9)
    while a.busy or b.busy:
        engine.step()
    assert a.output == generate(model, first, [], 9, temperature=0)[0]
    assert b.output == generate(model, second, [], 9, temperature=0)[0]


def test_many_turns_read_only_what_is_new_and_slots_are_used_again(make_model):
    model = make_model()
    engine, text, reads = Engine(model, 2, temperature=0), tokens(model, 4).tolist(), []
    for talk in range(3):
        row, ids = engine.add_row(), text
        for turn in range(4):
            new = ids + tokens(model, 3, seed=turn + 7 * talk).tolist()
            engine.start(row, new, [], 5)
            reads.append(len(row.unread))
            while row.busy:
                engine.step()
            assert row.output == generate(model, new, [], 5, temperature=0)[0]
            # the middle turn is retold in other words: the cache has to go back
            ids = new + (row.output if turn != 1 else tokens(model, 5, seed=99).tolist())
        engine.remove_row(row)
    # three new tokens, and the last one written, which had not been read yet; after the retelling five more
    assert reads == [7, 4, 8, 4] * 3


def test_why_a_row_stopped(make_model):
    model = make_model(context=10)
    greedy = generate(model, [5, 6, 7], [], 4, temperature=0)[0]
    rows = generate_batch(model, [[5, 6, 7]], [greedy[2]], 9, temperature=0)
    assert (rows[0].finish_reason, rows[0].output) == ("stop", greedy[:greedy.index(greedy[2])])
    assert generate_batch(model, [[5, 6, 7]], [], 4, temperature=0)[0].finish_reason == "length"
    full = generate_batch(model, [[5] * 8], [], 9, temperature=0)[0]
    assert full.finish_reason == "context" and full.output == generate(model, [5] * 8, [], 9, temperature=0)[0]
    assert generate_batch(model, [[5] * 11], [], 9, temperature=0)[0].finish_reason == "context"


# ------------------------------------------------------------------------------------------------
# checkpoints


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_a_saved_model_comes_back(make_model, tmp_path, tied, kv_heads):
    model = make_model(tied=tied, kv_heads=kv_heads, theta=500.0)
    save_model(model, tmp_path)
    back = load_model(tmp_path)
    assert back.config == model.config
    ids = tokens(model, 2, 8)
    assert torch.equal(back(ids), model(ids))
    assert (back.lm_head.weight is back.embed_tokens.weight) == tied


def test_shards_are_found_by_their_index(make_model, tmp_path):
    model = make_model()
    save_model(model, tmp_path)
    whole = read_safetensors(tmp_path / "model.safetensors")
    names = sorted(whole)
    weight_map = {}
    for n, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{n}-of-00002.safetensors"
        write_safetensors(tmp_path / file, {name: whole[name].clone() for name in part})
        weight_map |= dict.fromkeys(part, file)
    del whole
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    ids = tokens(model, 1, 5)
    assert torch.equal(load_model(tmp_path)(ids), model(ids))


def test_safetensors_of_every_kind(tmp_path):
    made = {"half": torch.randn(3, 2).half(), "brain": torch.randn(5).bfloat16(),
            "whole": torch.arange(4), "none": torch.empty(0, 3), "one": torch.tensor(1.5)}
    write_safetensors(tmp_path / "x", made)
    back = read_safetensors(tmp_path / "x")
    assert all(torch.equal(back[name], made[name]) and back[name].dtype == made[name].dtype
               for name in made)


def file_of(tmp_path, header, data=b"", length=None):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)
    return tmp_path / "x"


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("header, data, length", [
    ({"a": ENTRY}, b"1234", None),                                              # cut off
    ({"a": ENTRY}, b"12345678", 1 << 62),                                       # an endless header
    (b"", b"", 5),                                                              # no header at all
    (b"{nonsense", b"", None),
    (b"[]", b"", None),
    ({"a": {**ENTRY, "shape": [3]}}, b"12345678", None),                        # shape and bytes differ
    ({"a": {**ENTRY, "dtype": "F99"}}, b"12345678", None),
    ({"a": {**ENTRY, "shape": [-2]}}, b"12345678", None),
    ({"a": {**ENTRY, "shape": [-1, -2]}}, b"12345678", None),
    ({"a": {**ENTRY, "shape": "22"}}, b"12345678", None),
    ({"a": {**ENTRY, "shape": [2.0]}}, b"12345678", None),
    ({"a": {**ENTRY, "shape": [True, 2]}}, b"12345678", None),
    ({"a": {**ENTRY, "shape": [1 << 70, 0], "data_offsets": [0, 0]}}, b"", None),
    ({"a": {**ENTRY, "data_offsets": [0.0, 8]}}, b"12345678", None),
    (b"[" * 100000, b"", None),
    ({"a": {**ENTRY, "data_offsets": [0, 1 << 40]}}, b"12345678", None),        # outside the file
    ({"a": ENTRY, "b": ENTRY}, b"12345678", None),                              # overlap
    ({"a": {**ENTRY, "data_offsets": [8, 16]}}, b"1234567812345678", None),     # a hole
    ({"a": ENTRY}, b"123456789", None),                                         # bytes left over
    ({"a": 5}, b"", None),
])
def test_a_lying_safetensors_file_is_a_problem(tmp_path, header, data, length):
    with pytest.raises(UserError):
        read_safetensors(file_of(tmp_path, header, data, length))


def test_a_header_of_4_gib_is_refused_though_the_file_is_as_large(tmp_path):
    """All zeros, and on disk hardly anything: nobody reads that as JSON."""
    with open(tmp_path / "x", "wb") as file:
        file.write(struct.pack("<Q", 4 << 30))
        file.truncate(5 << 30)
    tracemalloc.start()
    with pytest.raises(UserError, match="its header would be 4,294,967,296 bytes"):
        read_safetensors(tmp_path / "x")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_whole_model_replaces_one_in_parts(make_model, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "old.safetensors"}}))
    save_model(make_model(), tmp_path)
    assert weight_file(tmp_path).name == "model.safetensors" and load_model(tmp_path)
    assert not (tmp_path / "model.safetensors.index.json").exists()


def test_a_broken_checkpoint_says_what_is_wrong(make_model, tmp_path):
    with pytest.raises(UserError, match="config.json: No such file"):
        load_model(tmp_path)
    save_model(make_model(), tmp_path)
    page = json.loads((tmp_path / "config.json").read_text())
    for change, what in [({"model_type": "gpt2"}, "'gpt2'"), ({"hidden_size": 64, "head_dim": 16}, "has shape"),
                         ({"num_hidden_layers": 3}, "lack layers.2"), ({"vocab_size": None}, "vocab_size"),
                         ({"num_attention_heads": 5}, "into 5 heads"),
                         ({"num_attention_heads": 0}, "num_attention_heads"), ({"hidden_size": 32.0}, "hidden_size"),
                         ({"num_hidden_layers": 1}, "which this model does not have"), ({"head_dim": 7}, "head_dim"),
                         ({"rope_scaling": {"type": "linear"}}, "rope scaling")]:
        (tmp_path / "config.json").write_text(json.dumps({**page, **change}))
        with pytest.raises(UserError, match=what):
            load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_model(tmp_path)
