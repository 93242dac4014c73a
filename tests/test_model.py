"""The network against torch's own functions, and every fast path against its slow twin."""

import json
import math
import struct
import tracemalloc
from types import SimpleNamespace

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


def same(what, got, want, **tolerance):
    """assert_close; the message shows both, or of large tensors where they differ most. want: a tensor, or lists."""
    assert torch.is_tensor(got), f"{what}: expected a tensor, got a {type(got).__name__}, {got}"
    want = want if torch.is_tensor(want) else torch.tensor(want, dtype=got.dtype)

    def message(why):
        text = lambda tensor: np.round(tensor.detach().double().numpy(), 4).tolist()
        if got.shape != want.shape:
            return f"{what}: expected shape {tuple(want.shape)}, got {tuple(got.shape)}, {text(got)}"
        if got.dtype != want.dtype:
            return f"{what}: expected {want.dtype}, got {got.dtype}"
        if got.numel() <= 16:
            return f"{what}: expected {text(want)}, got {text(got)}"
        index = np.unravel_index((got - want).abs().detach().nan_to_num(torch.inf).argmax(), want.shape)
        return f"{what}: at {list(map(int, index))} expected {text(want[index])}, got {text(got[index])}"
    close(got, want, **tolerance, msg=message)


# ------------------------------------------------------------------------------------------------
# the parts


@pytest.mark.exercise(11)
def test_rmsnorm_by_hand():
    norm = m.RMSNorm(2, 0.0)
    # (1 + 49) / 2 = 25, the root of which is 5
    same("two tokens, one twice the other", norm(torch.tensor([[1.0, 7], [2, 14]])), [[0.2, 1.4]] * 2)
    norm.weight.data = torch.tensor([1.0, 10])
    same("with weights 1 and 10", norm(torch.tensor([1.0, 7])), [0.2, 14])
    same("[4, 4] with eps 9: 4 / root of 16 + 9", m.RMSNorm(2, 9.0)(torch.tensor([4.0, 4])), [0.8, 0.8])


@pytest.mark.exercise(11)
def test_rmsnorm_is_torchs():
    norm, x = m.RMSNorm(8, 1e-5), torch.randn(2, 3, 8)
    norm.weight.data.uniform_(0.5, 2)
    same("torch's rms_norm", norm(x), F.rms_norm(x, (8,), norm.weight, 1e-5))


@pytest.mark.exercise(11)
def test_rmsnorm_of_half_precision_squares_in_float32():
    # the square of 300 is more than float16 holds
    got = m.RMSNorm(2, 1e-5).half()(torch.tensor([300.0, -300.0]).half())
    assert got.dtype == torch.float16, f"from float16 came {got.dtype}"
    same("[300, -300] in float16", got, [1, -1])


@pytest.mark.exercise(12)
def test_angles_by_hand():
    config = Config(dim=8, heads=2, theta=100.0)
    # a head is 4 wide: pair 0 turns by 1 a token, pair 1 by a tenth
    angles = torch.tensor([[0.0, 0.0], [3, 0.3], [10, 1]])
    cos, sin = m.rotary(torch.tensor([0, 3, 10]), config)
    same("cos of positions 0, 3, 10", cos, angles.cos())
    same("sin of positions 0, 3, 10", sin, angles.sin())


@pytest.mark.exercise(12)
def test_positions_of_rows_that_have_read_something():
    config = Config(dim=8, heads=2, theta=100.0)
    cos, sin = m.rotary(torch.tensor([[[5, 6]], [[20, 21]]]), config)
    assert cos.shape == sin.shape == (2, 1, 2, 2), f"positions (2, 1, 2), E / 2 = 2: got {tuple(cos.shape)}"
    same("cos of positions 5, 6 and 20, 21", cos, torch.tensor([[[[5, 0.5], [6, 0.6]]], [[[20, 2], [21, 2.1]]]]).cos())


@pytest.mark.exercise(13)
def test_rotation_by_hand():
    # by 90 degrees, not at all, and by 30 degrees
    angles = torch.tensor([[math.pi / 2, 0], [0, math.pi / 6]])
    x = torch.tensor([[1.0, 2, 3, 4], [1.0, 2, 3, 0]]).expand(1, 3, 2, 4)
    want = torch.tensor([[-3, 2, 1, 4], [1, 2 * 0.75 ** 0.5, 3, 1]]).expand(1, 3, 2, 4)
    same("three heads, two tokens", m.rotate(x, (angles.cos(), angles.sin())), want)


@pytest.mark.exercise(13)
def test_rotation_by_angles_of_each_row():
    angles = torch.tensor([0, math.pi / 2]).view(2, 1, 1, 1)
    got = m.rotate(torch.tensor([1.0, 0]).expand(2, 1, 1, 2), (angles.cos(), angles.sin()))
    same("(1, 0) of two rows, one turned by 90 degrees", got.view(2, 2), [[1, 0], [0, 1]])


@pytest.mark.exercise(13)
def test_rotation_keeps_the_type():
    x, angles = torch.randn(1, 2, 3, 4), torch.randn(3, 2)
    got = m.rotate(x.bfloat16(), (angles.cos(), angles.sin()))
    assert got.dtype == torch.bfloat16, f"from bfloat16 came {got.dtype}"
    same("in bfloat16", got.float(), m.rotate(x, (angles.cos(), angles.sin())), atol=0.05, rtol=0.05)


@pytest.mark.exercise(13)
def test_rotation_keeps_lengths_and_sees_only_distances():
    config, x = Config(dim=16, heads=2), torch.randn(2, 1, 1, 8)
    at = lambda i: m.rotary(torch.tensor([i]), config)
    q, k = x
    close(m.rotate(x, at(7)).norm(dim=-1), x.norm(dim=-1))
    near = (m.rotate(q[None], at(5)) * m.rotate(k[None], at(3))).sum()
    far = (m.rotate(q[None], at(95)) * m.rotate(k[None], at(93))).sum()
    close(near, far)
    assert (near - (q * k).sum()).abs() > 1e-3


@pytest.mark.exercise(14)
def test_attention_by_hand():
    zeros = torch.zeros(1, 1, 3, 1)
    v = torch.tensor([1.0, 3, 8]).view(1, 1, 3, 1)
    same("no key stands out, each row sees up to itself", m.eager(zeros, zeros, v, None).flatten(), [1, 2, 4])
    hidden = torch.tensor([[True, False, True]] * 3)
    same("column 1 is hidden from all", m.eager(zeros, zeros, v, hidden).flatten(), [4.5] * 3)
    # q k' is 2 ln 3, over the root of 4 it is ln 3: three times the weight of a product of 0
    q, k = torch.ones(1, 1, 1, 4), torch.tensor([[0.0] * 4, [math.log(3) / 2] * 4]).view(1, 1, 2, 4)
    v = torch.tensor([[0.0], [4]]).expand(1, 1, 2, 4)
    same("weights 1/4 and 3/4 of 0 and 4", m.eager(q, k, v, torch.ones(1, 2).bool())[0, 0, 0], [3.0] * 4)


@pytest.mark.exercise(14)
def test_neighbouring_heads_share_keys_and_values():
    v = torch.tensor([10.0, 20]).view(1, 2, 1, 1)
    got = m.eager(torch.zeros(1, 4, 1, 1), torch.zeros(1, 2, 1, 1), v, None)
    same("values of four query heads, two value heads", got.flatten(), [10, 10, 20, 20])


@pytest.mark.exercise(14)
@pytest.mark.parametrize("K", [1, 2, 4])
def test_explicit_attention_is_torchs(K):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, K, 7, 8), torch.randn(2, K, 7, 8)
    seen = torch.ones(5, 7, dtype=torch.bool).tril(2)
    same("five rows, seven columns", m.eager(q, k, v, seen), m.sdpa(q, k, v, seen))
    k, v = k[:, :, :5], v[:, :, :5]
    same("rows see up to themselves", m.eager(q, k, v, None), m.sdpa(q, k, v, None))
    seen = torch.stack([seen, seen.roll(1, 1)])[:, None, :, :5]
    same("two texts see different columns", m.eager(q, k, v, seen), m.sdpa(q, k, v, seen))


def test_nothing_looks_ahead(make_model):
    model = make_model()
    ids = tokens(model, 1, 12)
    other = ids.clone()
    other[0, 8:] = tokens(model, 4, seed=1)
    close(model(ids)[:, :8], model(other)[:, :8])


def after_last(p):
    """A model by hand: p[i] are the probabilities of the token after token i, whatever came before."""
    def model(ids, where=None):
        logits = torch.tensor(p).log()[ids]
        return logits if where is None else logits[where]
    return model


@pytest.mark.exercise(3)
def test_nll_by_hand():
    model = after_last([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5]])
    ids = torch.tensor([[0, 1, 2], [2, 0, 0]])
    targets = torch.tensor([[IGNORE, 0, 2], [0, IGNORE, 1]])
    # of 0 after 1, 2 after 2, 0 after 2, 1 after 0
    same("nats", nll(model, ids, targets), [math.log(8), math.log(2), math.log(4), math.log(4)])


@pytest.mark.exercise(3)
def test_nll_of_one_who_knows_nothing_is_the_logarithm_of_the_vocabulary():
    model = after_last([[0.1] * 10] * 10)
    ids = torch.arange(8).view(2, 4)
    same("ten tokens, all equally likely", nll(model, ids, ids + 1), [math.log(10)] * 8)
    got = nll(model, ids, torch.full_like(ids, IGNORE))
    assert got.shape == (0,), f"no target, so no number: expected shape (0,), got {tuple(got.shape)}"


@pytest.mark.exercise(3)
def test_nll_is_float32_whatever_the_model_computes_in():
    precise = after_last([[0.5, 0.25, 0.25]] * 3)
    got = nll(lambda *what: precise(*what).bfloat16(), torch.tensor([[0, 1]]), torch.tensor([[1, 0]]))
    assert got.dtype == torch.float32, f"expected float32 from logits in bfloat16, got {got.dtype}"


@pytest.mark.exercise(3)
def test_nll_is_cross_entropy_at_the_learnt_positions(make_model):
    model = make_model()
    ids, targets = tokens(model, 3, 9), tokens(model, 3, 9, seed=1)
    targets[0, :5] = targets[2, 2:] = IGNORE
    everywhere = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), reduction="none")
    same("nats", nll(model, ids, targets), everywhere[targets.flatten() != IGNORE])


# ------------------------------------------------------------------------------------------------
# LoRA


def lora_by_hand(bias=None):
    """A LoRALinear that maps 2 numbers to 3; its scale is 6 / 2 = 3."""
    linear = torch.nn.Linear(2, 3, bias=bias is not None)
    linear.weight.data = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    if bias is not None:
        linear.bias.data.fill_(bias)
    wrapped = m.LoRALinear(linear, rank=2, alpha=6)
    wrapped.A.data = torch.tensor([[1.0, 1], [0, -1]])
    wrapped.B.data = torch.tensor([[1.0, 0], [2, 1], [0, 0]])
    return wrapped


@pytest.mark.exercise(16)
def test_a_low_rank_change_by_hand():
    x = torch.tensor([[1.0, 2], [0, 0]])
    # W x = [1, 2, 3], A x = [3, -2], B A x = [3, 4, 0]
    same("W x + 3 B A x", lora_by_hand()(x), [[10, 14, 3], [0, 0, 0]])
    same("with a bias of 5", lora_by_hand(bias=5.0)(x), [[15, 19, 8], [5, 5, 5]])


@pytest.mark.exercise(16)
def test_a_low_rank_change_keeps_the_type():
    wrapped = lora_by_hand()
    wrapped.linear.bfloat16()
    got = wrapped(torch.ones(2, 2).bfloat16())
    assert got.dtype == torch.bfloat16, f"from bfloat16 came {got.dtype}"
    assert wrapped.A.dtype == wrapped.B.dtype == torch.float32, "A and B are no longer float32"


@pytest.mark.exercise(17)
def test_a_merge_by_hand():
    wrapped = lora_by_hand(bias=5.0)
    merged = wrapped.merge()
    # B A = [[1, 1], [2, 1], [0, 0]]
    same("W + 3 B A", merged.weight, [[4.0, 3], [6, 4], [1, 1]])
    assert merged is wrapped.linear, "expected self.linear itself, not another Linear"
    assert merged.bias is not None, "self.linear had a bias, which is gone"
    same("the bias stays", merged.bias, [5.0, 5, 5])


@pytest.mark.exercise(17)
def test_a_merge_rounds_once():
    wrapped = m.LoRALinear(torch.nn.Linear(1, 1, bias=False).bfloat16(), rank=1, alpha=1)
    wrapped.linear.weight.data.fill_(1)
    wrapped.A.data.fill_(1)
    # bfloat16 has nothing between 1 and 1 + 2 ** -7: this is more than half of the way
    wrapped.B.data.fill_(2 ** -8 + 2 ** -18)
    got = wrapped.merge().weight
    assert got.dtype == torch.bfloat16, f"the weight was bfloat16, and is {got.dtype}"
    assert got.item() == 1 + 2 ** -7, f"1 + 0.00391 in bfloat16: expected {1 + 2 ** -7}, got {got.item()}"


@pytest.mark.exercise(17)
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


@pytest.mark.exercise(16)
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


@pytest.mark.exercise(18)
@pytest.mark.parametrize("top_k, top_p, want", [
    (0, 1.0, [0.5, 0.25, 0.125, 0.125]),
    (3, 1.0, [0.5, 0.25, 0.125, 0]),
    (9, 1.0, [0.5, 0.25, 0.125, 0.125]),
    # the token that crosses top_p stays
    (0, 0.6, [0.5, 0.25, 0, 0]),
    # exactly reached is reached
    (0, 0.75, [0.5, 0.25, 0, 0]),
    (0, 0.8, [0.5, 0.25, 0.125, 0]),
    # the first alone is more than that
    (0, 0.3, [0.5, 0, 0, 0]),
    (0, 0.0, [0.5, 0, 0, 0]),
    # both; of what top_k leaves, the first token would have two thirds
    (2, 0.6, [0.5, 0.25, 0, 0]),
    (1, 0.8, [0.5, 0, 0, 0]),
    (3, 0.3, [0.5, 0, 0, 0])])
def test_what_top_k_and_top_p_leave(top_k, top_p, want):
    p = torch.tensor([[0.5, 0.25, 0.125, 0.125]])
    same(f"top_k {top_k}, top_p {top_p}", m.keep_top(p, top_k, top_p), [want])


@pytest.mark.exercise(18)
def test_each_row_is_limited_by_itself():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.875, 0.125, 0]])
    same("top_p 0.75", m.keep_top(p, 0, 0.75), [[0.5, 0.25, 0], [0.875, 0, 0]])


@pytest.mark.exercise(19)
@pytest.mark.parametrize("scale", [1, 3, 1 / 8])
def test_draws_by_hand(scale):
    p = scale * torch.tensor([[1.0, 0, 2, 1], [0, 1, 0, 0]])
    u = torch.tensor([0, 0.125, 0.25, 0.5, 0.75, 0.875], dtype=torch.float64).expand(2, 6)
    got, want = m.draw(p, u).tolist(), [[0, 0, 2, 2, 3, 3], [1] * 6]
    assert got == want, f"weights {p.tolist()}, u {u[0].tolist()}: expected {want}, got {got}"


@pytest.mark.exercise(19)
def test_a_weight_of_0_is_never_drawn_even_at_both_ends():
    p = torch.tensor([[0, 0.25, 0.5, 0, 0]])
    got = m.draw(p, torch.tensor([[0, 1 - 2 ** -53]], dtype=torch.float64)).tolist()
    assert got == [[1, 2]], f"weights {p.tolist()}, u 0 and nearly 1: expected [[1, 2]], got {got}"


@pytest.mark.exercise(19)
def test_draws_follow_the_weights():
    p = torch.rand(3, 7)
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    counts = torch.stack([row.bincount(minlength=7) for row in m.draw(p, u.expand(3, 4000))])
    same("shares of 4,000 draws", counts / 4000, p / p.sum(-1, keepdim=True), atol=1e-3, rtol=0)


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


@pytest.mark.exercise(18)
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


@pytest.mark.exercise(19)
def test_the_end_of_the_unit_interval_stays_among_what_is_kept():
    logits = torch.tensor([[1.0, 2.0, -torch.inf, -torch.inf]])
    almost = torch.tensor([[1 - 2 ** -53]], dtype=torch.float64)
    assert sample(logits, almost).item() == 1
    assert sample(logits, almost, top_p=0.99).item() in (0, 1)
    assert sample(logits, torch.tensor([[0.0]])).item() == 0


# ------------------------------------------------------------------------------------------------
# the plain loop


def stub(logits_of, context=10):
    """A model for `generate` by hand: logits_of(ids) of one text, (T, V)."""
    def call(ids):
        assert ids.shape[0] == 1 and ids.shape[1] <= context, f"it reads (1, up to {context}), not {tuple(ids.shape)}"
        return logits_of(ids[0])[None]

    class Model:
        config = SimpleNamespace(context=context)
        norm = SimpleNamespace(weight=torch.ones(1))
        __call__ = staticmethod(call)
    return Model()


# after n tokens comes token n; token 0, 1, 2, 3 are equally likely; 0 or 1, and less likely 2 or 3
counting = stub(lambda ids: 100.0 * F.one_hot(torch.arange(1, len(ids) + 1), 20))
flat = stub(lambda ids: torch.zeros(len(ids), 4))
uneven = stub(lambda ids: torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(len(ids), 4))


@pytest.mark.exercise(4)
@pytest.mark.parametrize("given, stops, limit, want", [
    (3, [], 4, ([3, 4, 5, 6], "length")),
    (3, [5, 9], 4, ([3, 4], "stop")),
    (3, [3], 4, ([], "stop")),
    # a stop at the limit, and just beyond it
    (3, [6], 4, ([3, 4, 5], "stop")),
    (3, [7], 4, ([3, 4, 5, 6], "length")),
    # the model reads ten tokens, and says what comes after the tenth
    (8, [], 9, ([8, 9, 10], "context")),
    (8, [], 3, ([8, 9, 10], "length")),
    (10, [10], 9, ([], "stop")),
    (11, [], 9, ([], "context"))])
def test_why_a_text_ends(given, stops, limit, want):
    ids = [19] * given
    got = generate(counting, ids, stops, limit, temperature=0)
    assert got == want, (f"after n tokens token n is certain; {given} given, stops {stops}, limit {limit}: "
                         f"expected {want}, got {got}")
    assert ids == [19] * given, f"the list that was given has changed, to {ids}"


@pytest.mark.exercise(4)
def test_each_token_is_the_likeliest_after_all_before_it(make_model):
    model = make_model()
    ids = tokens(model, 5).tolist()
    output, _ = generate(model, ids, [], 6, temperature=0)
    assert len(output) == 6
    for n, token in enumerate(output):
        want = model(torch.tensor([ids + output[:n]]))[0, -1].argmax().item()
        assert token == want, f"after {ids + output[:n]} comes {want}, not {token}"


@pytest.mark.exercise(4)
def test_each_token_is_drawn_by_a_number_of_its_own():
    numbers = [0.1, 0.6, 0.3, 0.9, 0.5]
    u = iter(numbers)
    got = generate(flat, [1], [3], 9, u.__next__)
    assert got == ([0, 2, 1], "stop"), f"u {numbers}, four likely tokens, 3 stops: expected [0, 2, 1], got {got}"
    assert list(u) == [0.5], "each drawn token, the stop as well, takes one number"
    got = generate(uneven, [1], [], 2, lambda: 0.8, top_k=2)[0]
    assert got == [1, 1], f"top_k=2 leaves tokens 0 and 1: expected [1, 1], got {got}"
    got = generate(uneven, [1], [], 2, lambda: 0.8, temperature=100)[0]
    assert got == [3, 3], f"temperature=100 makes all nearly as likely: expected [3, 3], got {got}"


# ------------------------------------------------------------------------------------------------
# the cache and the engine


@pytest.mark.exercise(15)
def test_new_tokens_attend_to_all_that_their_rows_hold(make_model):
    """Rows of different lengths, long ones last: each as if its whole text were read at once."""
    model = make_model(context=9)
    q, k, v = torch.randn(3, 4, 9, 8), torch.randn(3, 2, 9, 8), torch.randn(3, 2, 9, 8)
    cache, read = Cache(model, 3), [0, 0, 0]
    # together, one alone, in another order, one token each of all, of one
    for pieces in [{0: 2, 1: 1, 2: 3}, {2: 2}, {2: 1, 0: 4}, {2: 1, 1: 1}, {0: 1, 1: 1, 2: 1}, {1: 1}, {1: 3, 0: 1}]:
        end_to_end = lambda x: torch.cat([x[r, :, read[r]:read[r] + n] for r, n in pieces.items()], dim=1)[None]
        positions, attends = cache.open(m.eager, list(pieces), list(pieces.values()))
        assert positions.tolist() == [read[r] + i for r, n in pieces.items() for i in range(n)]
        for layer, attend in enumerate(attends):
            # each layer's values are its own
            y = attend(end_to_end(q), end_to_end(k), (layer + 1) * end_to_end(v))
            assert y.shape == (1, 4, sum(pieces.values()), 8), f"N tokens end to end: got {tuple(y.shape)}"
            parts = y[0].split(list(pieces.values()), dim=1)
            for part, (r, n) in zip(parts, pieces.items()):
                end = read[r] + n
                whole = m.eager(q[r:r + 1, :, :end], k[r:r + 1, :, :end], v[r:r + 1, :, :end], None)
                same(f"layer {layer}, pieces {pieces}: row {r}, which had read {read[r]} tokens, reads {n} more",
                     part, (layer + 1) * whole[0, :, read[r]:], rtol=1e-4, atol=1e-5)
        for r, n in pieces.items():
            read[r] += n
    assert cache.lengths == read


@pytest.mark.exercise(15)
def test_whoever_opens_the_cache_says_how_to_attend(make_model):
    seven = lambda q, k, v, visible: torch.full_like(q, 7)
    _, attends = Cache(make_model(), 2).open(seven, [0, 1], [3, 1])
    y = attends[0](torch.randn(1, 4, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8))
    same("attention(q, k, v, visible) gives 7 for every number", y, torch.full((1, 4, 4, 8), 7.0))


@pytest.mark.exercise(15)
def test_a_cache_may_be_of_another_type(make_model):
    cache = Cache(make_model().bfloat16(), 1)
    _, attends = cache.open(m.eager, [0], [3])
    q, k, v = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    y = attends[0](q, k, v)
    assert y.dtype == torch.float32, f"queries in float32, a cache in bfloat16: expected float32, got {y.dtype}"
    same("as without a cache", y, m.eager(q, k, v, None), rtol=0.1, atol=0.1)


@pytest.mark.exercise(15)
@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("cuts", [[1] * 9, [9], [4, 5], [2, 1, 6]])
def test_reading_with_a_cache_is_reading_without(make_model, cuts, attention):
    model = make_model()
    model.attend = m.ATTENTION[attention]
    ids, cache = tokens(model, 2, 9), Cache(model, 2)
    parts = [model.last_hidden(part.reshape(1, -1), cache, [0, 1], [part.size(1)] * 2).view(2, part.size(1), -1)
             for part in ids.split(cuts, dim=1)]
    close(torch.cat(parts, dim=1), model.last_hidden(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.exercise(15)
def test_ragged_rows_read_as_if_alone(make_model):
    model = make_model(context=20)
    ids, cache = tokens(model, 3, 20), Cache(model, 3)
    # row by row, uneven pieces, some rows missing, up to the end of the context
    for rows, counts in [([0, 1, 2], [5, 2, 1]), ([2, 0], [6, 1]), ([0, 1, 2], [14, 3, 1]),
                         ([1, 2], [15, 12])]:
        begin = [cache.lengths[r] for r in rows]
        new = torch.cat([ids[r, b:b + n] for r, b, n in zip(rows, begin, counts)])
        parts = model.last_hidden(new[None], cache, rows, counts)[0].split(counts)
        for part, r, b, n in zip(parts, rows, begin, counts):
            close(part, model.last_hidden(ids[r:r + 1, :b + n])[0, b:], rtol=1e-4, atol=1e-4)
    assert cache.lengths == [20, 20, 20]


def prompts_for(model, n):
    return [tokens(model, length, seed=length).tolist() for length in range(3, 3 + n)]


@pytest.mark.exercise(20)
@pytest.mark.parametrize("slots, chunk", [(1, 512), (3, 512), (7, 2)])
@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}])
def test_a_batch_writes_what_each_row_writes_alone(make_model, slots, chunk, how):
    model = make_model()
    prompts = prompts_for(model, 7)
    draws = [np.random.default_rng([1, i]).random for i in range(7)]
    rows = generate_batch(model, prompts, [2, 3, 4, 5], 12, slots, draws, chunk=chunk, **how)
    for i, (row, ids) in enumerate(zip(rows, prompts)):
        alone = generate(model, ids, [2, 3, 4, 5], 12, np.random.default_rng([1, i]).random, **how)
        assert (row.output, row.finish_reason) == alone, (
            f"text {i} alone is {alone}, among the others {(row.output, row.finish_reason)}")


@pytest.mark.exercise(20)
@pytest.mark.parametrize("slots, fitting", [(2, 1 << 30), (64, 2)])
def test_when_a_text_ends_the_next_takes_its_slot(make_model, monkeypatch, slots, fitting):
    model, steps, started = make_model(context=12), [], []
    step, start = Engine.step, Engine.start

    def watched_step(engine):
        busy, waiting = sum(row.busy for row in engine.rows), len(prompts) - len(started)
        steps.append(busy)
        assert len(steps) < 200, "after 200 steps it is still not finished"
        assert busy <= 2, f"two texts at a time, not {busy}"
        assert busy == 2 or not waiting, f"slots in use: {busy} of 2, while {waiting} texts wait for one"
        return step(engine)
    monkeypatch.setattr(Engine, "step", watched_step)
    monkeypatch.setattr(Engine, "start", lambda *what, **more: started.append(1) or start(*what, **more))
    monkeypatch.setattr(m, "rows_that_fit", lambda model: fitting)
    # the model reads 12 tokens: some texts end before the limit
    prompts = [[5] * given for given in (3, 9, 11, 6, 12)]
    rows = generate_batch(model, prompts, [], 6, slots, temperature=0)
    got, want = [(len(row.output), row.finish_reason) for row in rows], [
        (6, "length"), (4, "context"), (2, "context"), (6, "length"), (1, "context")]
    assert got == want, f"prompts of 3, 9, 11, 6, 12 tokens, limit 6, context 12: expected {want}, got {got}"
    assert steps, "no step of an Engine was taken"


@pytest.mark.exercise(20)
def test_a_prompt_that_is_too_long_keeps_nobody_waiting(make_model, monkeypatch):
    model, steps, step = make_model(context=12), [], Engine.step

    def watched_step(engine):
        steps.append(1)
        assert len(steps) < 200, "after 200 steps it is still not finished"
        return step(engine)
    monkeypatch.setattr(Engine, "step", watched_step)
    rows = generate_batch(model, [[5] * given for given in (3, 13, 4)], [], 2, 1, temperature=0)
    got = [(len(row.output), row.finish_reason) for row in rows]
    want = [(2, "length"), (0, "context"), (2, "length")]
    assert got == want, f"prompts of 3, 13, 4 tokens, limit 2, context 12: expected {want}, got {got}"


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
