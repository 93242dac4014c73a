"""
A LLaMA in one file: the network, LoRA, sampling, and two ways to write text.

`generate` is the plain way: one text, everything read again for each token. `Engine` is the fast
way: a key/value cache, and many texts at once. In float32 both write the same (test_model.py).

    B batch     T tokens in this call    S tokens that a row can see, S >= T    V vocabulary
    D width     H query heads            K key/value heads                      E width of one head
    N tokens that a mask selects         n draws for each row                   b rows of one group

Read before: platolm.py. Read next: train.py.
"""

import math
import os
from dataclasses import dataclass, field
from functools import partial

# waiting threads should sleep: if they spin, any other busy program slows torch tenfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from data.program import UserError
from platolm import IGNORE


@dataclass
class Config:
    """The shape of a model. The defaults are the tiny one that `make all` trains."""
    vocab: int = 1024
    dim: int = 96           # D
    layers: int = 3
    heads: int = 2          # H
    kv_heads: int = 2       # K; fewer than H: neighbouring query heads share keys and values
    hidden: int = 256       # width inside the feed-forward part
    context: int = 384      # the longest text it is meant to read
    theta: float = 500000.0  # pair i rotates by theta ** (-i / (E / 2)) radians a token
    eps: float = 1e-5
    tied: bool = True       # the head reads with the same matrix that the embedding writes with


# ------------------------------------------------------------------------------------------------
# the network (Touvron et al. 2023, arXiv 2302.13971)


class RMSNorm(nn.Module):
    """Scale each token's vector to a root mean square of 1, then by a learnt weight."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    # exercise 11: a root mean square of 1
    def forward(self, x):
        """
        Divide each token's vector by its root mean square, then multiply it by self.weight (D,).

        x (..., D)  ->  (..., D). No mean is subtracted; self.eps is added to the mean of squares,
        under the root. The division is float32, rounded to x's type before the weight comes in.
        """
        x32 = x.float()
        scale = torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        return (x32 * scale).type_as(x) * self.weight


# exercise 12: angles of rotary positions
def rotary(positions, config):
    """
    Return cos and sin of the angles of rotary positions (Su et al. 2021, arXiv 2104.09864).

    positions (T,) or (B, 1, T)  ->  two float32 tensors of shape positions.shape + (E / 2,), where
    E is config.dim / config.heads. Pair i turns by config.theta ** (-i / (E / 2)) radians a token:
    with E = 4 and theta = 100 the two angles of position 3 are 3 and 0.3.
    """
    half = config.dim // config.heads // 2
    speeds = config.theta ** (-torch.arange(half, device=positions.device) / half)
    angles = positions[..., None] * speeds
    return angles.cos(), angles.sin()


# exercise 13: rotating pairs by their angles
def rotate(x, rope):
    """
    Rotate each pair (i, i + E/2) of x (B, heads, T, E) by its position's angles.

    rope: their cos and sin, each (T, E/2) or (B, 1, T, E/2). Returns x's shape and type. 90 degrees
    take (1, 0) to (0, 1), so angles of 90 and 0 make [-3, 2, 1, 4] of [1, 2, 3, 4]. A product of
    two rotated vectors depends only on the distance between them. This is the half-split layout of
    Hugging Face; Meta's own files hold the two of a pair side by side.
    """
    cos, sin = (part.to(x.dtype) for part in rope)
    # (a, b) becomes (a cos - b sin, b cos + a sin); fewer, larger operations are faster
    cos = torch.cat([cos, cos], dim=-1)                              # (T, E)
    sin = torch.cat([-sin, sin], dim=-1)
    return x * cos + x.roll(x.size(-1) // 2, dims=-1) * sin


# exercise 14: attention spelled out
def eager(q, k, v, visible):
    """
    Attention spelled out: softmax(q k' / sqrt(E) + mask) v.

    q (B, H, T, E), k and v (B, K, S, E)  ->  (B, H, T, E). visible: True where row t may look at
    column s, of shape (T, S) or (B, 1, T, S); None: row t sees the columns 0 to t. Neighbouring
    query heads share: with H = 4 and K = 2 heads 0 and 1 use head 0 of k and v, 2 and 3 use head 1.
    """
    H, T, E = q.shape[1:]
    K, S = k.shape[1:3]
    if visible is None:
        visible = torch.ones(T, S, dtype=torch.bool, device=q.device).tril()
    if K < H:
        # heads [k1, k2] become [k1, k1, k2, k2]
        k = k.repeat_interleave(H // K, dim=1)
        v = v.repeat_interleave(H // K, dim=1)
    mask = torch.zeros(visible.shape, dtype=q.dtype, device=q.device)
    mask = mask.masked_fill(~visible, -torch.inf)
    scores = q @ k.transpose(2, 3) / math.sqrt(E) + mask             # (B, H, T, S)
    return scores.softmax(dim=-1) @ v


def sdpa(q, k, v, visible):
    """The same by torch's own kernel, which never holds all (T, S) scores at once."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, is_causal=visible is None, enable_gqa=k.size(1) < q.size(1))


# keys: the values of --attention, and of "attention" in runs/machine.json
ATTENTION = {"explicit": eager, "fused": sdpa}


class Attention(nn.Module):
    """Each token gathers from itself and the tokens before it."""

    def __init__(self, config):
        super().__init__()
        D, self.E = config.dim, config.dim // config.heads
        self.q_proj = nn.Linear(D, config.heads * self.E, bias=False)
        self.k_proj = nn.Linear(D, config.kv_heads * self.E, bias=False)
        self.v_proj = nn.Linear(D, config.kv_heads * self.E, bias=False)
        self.o_proj = nn.Linear(config.heads * self.E, D, bias=False)

    def forward(self, x, rope, attend):
        """
        x (B, T, D)  ->  (B, T, D). rope: the angles; attend(q, k, v): attention over this call's
        tokens, or over those in a cache as well.
        """
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, -1, self.E).transpose(1, 2)    # (B, H, T, E)
        k = self.k_proj(x).view(B, T, -1, self.E).transpose(1, 2)    # (B, K, T, E)
        v = self.v_proj(x).view(B, T, -1, self.E).transpose(1, 2)    # (B, K, T, E)
        y = attend(rotate(q, rope), rotate(k, rope), v)              # (B, H, T, E)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): one half gates the other."""

    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention, then feed-forward; each adds to the residual stream."""

    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.eps)
        self.mlp = FeedForward(config)

    def forward(self, x, rope, attend):
        x = x + self.self_attn(self.input_layernorm(x), rope, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The whole model. Its parts are named as in Hugging Face's checkpoints."""

    def __init__(self, config, attention="explicit"):
        super().__init__()
        self.config = config
        self.attend = ATTENTION[attention]
        # training with less memory: keep each layer's input, compute the rest again in backward
        self.recompute = False
        self.embed_tokens = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)
        self.lm_head = nn.Linear(config.dim, config.vocab, bias=False)
        # as LLaMA; from larger weights a model learns later to look up what it has read
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def last_hidden(self, ids, cache=None, rows=None, counts=None):
        """
        The last layer's output at each token: ids (B, T)  ->  (B, T, D).

        With a cache, ids (1, N) holds, end to end, the next counts[i] tokens of its row rows[i].
        """
        if cache is None:
            positions = torch.arange(ids.size(1), device=ids.device)
            attends = [partial(self.attend, visible=None)] * len(self.layers)
        else:
            positions, attends = cache.open(self.attend, rows, counts)
        rope = rotary(positions, self.config)
        x = self.embed_tokens(ids)                                   # (B, T, D)
        for layer, attend in zip(self.layers, attends):
            if self.recompute:
                x = checkpoint(layer, x, rope, attend, use_reentrant=False,
                               preserve_rng_state=False)
            else:
                x = layer(x, rope, attend)
        return self.norm(x)

    def forward(self, ids, where=None):
        """
        Logits of the token after each token: ids (B, T)  ->  (B, T, V); or only after the N tokens
        where `where` (B, T) is True  ->  (N, V).
        """
        x = self.last_hidden(ids)
        return self.lm_head(x if where is None else x[where])


# exercise 3: the loss over target tokens
def nll(model, ids, targets):
    """
    Negative log-likelihood of each target token, in nats: float32 (N,), row by row.

    ids, targets (B, T): targets[b, t] is the token to follow ids[b, t], or IGNORE where nothing is
    learnt; N of them are to be learnt. model(ids) returns logits (B, T, V), model(ids, where) only
    those after the tokens where `where` (B, T) is True.
    """
    learnt = targets != IGNORE                                       # (B, T)
    # the head is the widest matrix of a small model: only learnt positions go through it
    logits = model(ids, learnt)                                      # (N, V)
    return F.cross_entropy(logits.float(), targets[learnt], reduction="none")


# ------------------------------------------------------------------------------------------------
# LoRA (Hu et al. 2021, arXiv 2106.09685)


class LoRALinear(nn.Module):
    """
    W x + (alpha / rank) B A x, with W frozen. B begins at zero, so at first nothing changes.

    A and B are float32 whatever W is: they are small, and learn in small steps.
    """

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        device = linear.weight.device
        self.A = nn.Parameter(torch.randn(rank, linear.in_features, device=device)
                              / math.sqrt(linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))

    # exercise 16: a low-rank change
    def forward(self, x):
        """
        x (..., in)  ->  (..., out), of x's type: what self.linear gives, plus (alpha / rank) B A x.
        self.A is (rank, in), self.B (out, rank), both float32; self.scale is alpha / rank.
        """
        A, B = self.A.to(x.dtype), (self.B * self.scale).to(x.dtype)
        change = F.linear(F.linear(x, A), B)
        return self.linear(x) + change

    # exercise 17: merging the change
    @torch.no_grad()
    def merge(self):
        """
        Return the plain Linear that computes the same: W + (alpha / rank) B A.

        It is self.linear, of which the weight W (out, in) changes in place: the sum is float32, and
        rounded once to W's type. A is (rank, in), B (out, rank); self.scale is alpha / rank.
        """
        change = self.scale * self.B.float() @ self.A.float()
        self.linear.weight.copy_(self.linear.weight.float() + change)
        return self.linear


def find_modules(model, kind, names=None):
    """List (parent, name, child) of every child of a class and, if given, with one of `names`."""
    modules = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, kind) and (names is None or name in names):
                modules.append((parent, name, child))
    return modules


def add_lora(model, names, rank, alpha):
    """Wrap every Linear with one of these names, freeze all else; return how many were wrapped."""
    if model.config.tied and "lm_head" in names:
        raise UserError("lm_head is tied to the embedding: LoRA on it would change both")
    model.requires_grad_(False)
    modules = find_modules(model, nn.Linear, names)
    unknown = set(names) - {name for _, name, _ in modules}
    if unknown:
        raise UserError(f"no matrix of the model is called {' or '.join(sorted(unknown))}")
    for parent, name, linear in modules:
        setattr(parent, name, LoRALinear(linear, rank, alpha))
    return len(modules)


def merge_lora(model):
    """Replace every LoRALinear by its merged Linear, in place; return the model."""
    for parent, name, wrapped in find_modules(model, LoRALinear):
        setattr(parent, name, wrapped.merge())
    return model.requires_grad_(True)


# ------------------------------------------------------------------------------------------------
# writing, the plain way: draw a token, append it, read everything again


# exercise 18: top-k and top-p
def keep_top(p, top_k, top_p):
    """
    Limit a choice: probabilities p (B, V), each row from large to small  ->  p, 0 where dropped.

    top_k keeps the first top_k (0: all), top_p the fewest whose sum reaches top_p; both look at p
    as given, and what both keep stays as it is. The first is kept in any case, even at top_p = 0.
    Both p are tensors; the one that is given may be overwritten.
    keep_top(tensor([[0.4, 0.3, 0.2, 0.1]]), 2, 0.5)  ->  tensor([[0.4, 0.3, 0, 0]])
    """
    allowed = p.cumsum(dim=-1) - p < top_p
    allowed[:, 0] = True
    if top_k:
        allowed[:, top_k:] = False
    return p * allowed


# exercise 19: drawing by inverse CDF
def draw(p, u):
    """
    Draw by inverse CDF: weights p (B, V), u (B, n) uniform in [0, 1)  ->  indices (B, n).

    Weights need not sum to 1: [[1, 0, 2, 1]] draws 0 if u < 1/4, 2 if 1/4 <= u < 3/4, else 3. A
    weight of 0 is never drawn, even if u rounds to 1 in p's type, as 1 - 2 ** -53 does.
    """
    cdf = p.cumsum(dim=-1)                                           # (B, V), not normalised
    total = cdf[:, -1:].contiguous()
    index = torch.searchsorted(cdf, u.to(cdf) * total, right=True)   # (B, n)
    # beyond every sum the last possible index is drawn
    return index.minimum(torch.searchsorted(cdf, total))


def sample(logits, u, temperature=1.0, top_k=0, top_p=1.0):
    """
    Draw tokens: logits (B, V), u (B, n) uniform in [0, 1)  ->  ids (B, n).

    temperature 0 takes the most likely token; top_k and top_p as in `keep_top`. The same u draws
    the same token in any batch, or, within a rounding error of a border, perhaps its neighbour.
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True).expand(u.shape)
    p = (logits.float() / temperature).softmax(dim=-1)               # (B, V)
    if not top_k and top_p >= 1:
        return draw(p, u)
    p, ids = p.sort(dim=-1, descending=True, stable=True)
    return ids.gather(1, draw(keep_top(p, top_k, top_p), u))


# exercise 4: the plain sampling loop
@torch.inference_mode()
def generate(model, ids, stops, limit, uniform=None, **sampling):
    """
    Write on after the ids of a text, the plain way: all is read again for every token.

    model(tensor (1, T)) returns logits (1, T, V). sample(logits (1, V), u (1, 1), **sampling) draws
    the next token; u comes from uniform(), called once a token, or is 0 without it. All tensors are
    on model.norm.weight.device. Returns (list of the ids written, why they end): "stop" if one of
    `stops` is drawn, which is left out; "length" at `limit` ids (limit > 0); else "context" when
    the text, with what was given, is longer than model.config.context tokens, maybe at once.
    """
    output = []
    while len(ids) + len(output) <= model.config.context:
        logits = model(torch.tensor([ids + output], device=model.norm.weight.device))[:, -1]
        u = torch.tensor([[uniform() if uniform else 0.0]], dtype=torch.float64)
        token = sample(logits, u.to(logits.device), **sampling).item()
        if token in stops:
            return output, "stop"
        output.append(token)
        if len(output) == limit:
            return output, "length"
    return output, "context"


# ------------------------------------------------------------------------------------------------
# writing, the fast way: a cache, and an engine that writes many texts at once


class Cache:
    """
    Keys and values of the tokens that each row has read; row r has read lengths[r] of them.

    Rows are ragged, and nothing is padded: new tokens of all rows lie end to end, in one dimension.
    """

    def __init__(self, model, rows):
        c = model.config
        like = model.embed_tokens.weight
        shape = (c.layers, rows, c.kv_heads, c.context, c.dim // c.heads)
        self.k = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.v = torch.zeros_like(self.k)
        self.lengths = [0] * rows

    def open(self, attention, rows, counts):
        """
        Make room for counts[i] more tokens in row rows[i]; N tokens together, end to end.

        Returns their positions (N,) and, per layer, a function attend(q, k, v), which stores k and
        v and applies `attention` to all that each token's row holds up to it.
        """
        positions, row_of, reading, writing = [], [], [], {}
        for row, count in zip(rows, counts):
            begin = self.lengths[row]
            if count == 1:
                writing[row] = len(positions)
            else:
                reading.append((row, range(len(positions), len(positions) + count)))
            positions += range(begin, begin + count)
            row_of += [row] * count
            self.lengths[row] += count
        # a row that reads attends by itself, those that write a token each do together
        groups = [self.group(slice(row, row + 1), [tokens], positions) for row, tokens in reading]
        if 2 * len(writing) > len(self.lengths):
            # all rows of the cache are a view, some of them would be a copy: idle ones get the
            # token after the last, which belongs to nobody
            tokens = [[writing.get(row, len(positions))] for row in range(len(self.lengths))]
            groups.append(self.group(slice(None), tokens, positions + [0]))
        elif writing:
            tokens = [[token] for token in writing.values()]
            groups.append(self.group(list(writing), tokens, positions))
        device = self.k.device
        positions = torch.tensor(positions, device=device)           # (N,)
        columns = torch.tensor(row_of, device=device), slice(None), positions
        attend = partial(self.store_and_attend, attention, columns, groups)
        return positions, [partial(attend, layer) for layer in range(len(self.k))]

    def group(self, rows, tokens, positions):
        """
        What `store_and_attend` needs of tokens (b, T) that attend together, T of each of b rows.

        Returns rows, tokens, S: how many columns they can see, and which of them: visible (b, 1, T,
        S), or None where each token sees those up to it.
        """
        seen = [[positions[token] for token in row] for row in tokens]
        S = 1 + max(row[-1] for row in seen)
        visible = None
        if len(tokens) > 1 or S > len(seen[0]):
            last = torch.tensor(seen, device=self.k.device)          # (b, T)
            visible = torch.arange(S, device=last.device) <= last[:, None, :, None]
        return rows, torch.tensor(tokens, device=self.k.device), S, visible

    # exercise 15: attention with a cache
    def store_and_attend(self, attention, columns, groups, layer, q, k, v):
        """
        Store new tokens' keys and values, then let their queries attend to all their rows hold.

        The N tokens lie end to end: q (1, H, N, E), k and v (1, K, N, E)  ->  (1, H, N, E) in q's
        type. self.k[layer] and self.v[layer] are (rows, K, columns, E), perhaps of another type;
        indexed by `columns` they are the places of the new tokens, (N, K, E). Tokens attend in
        groups (chosen, tokens, S, visible): tokens (b, T) are the numbers, below N, of T tokens of
        each of b rows, and `chosen` selects these b rows of the layer, of which they attend to the
        first S columns. The number N stands for a token of a row that is idle: its query may be
        anything, zeros say, and what comes out is dropped. If rows 0 and 2 write a token each and
        row 1 is idle, N is 2 and tokens [[0], [2], [1]]. `open` makes columns, `group` the groups.
        attention(q, k, v, visible) is like `eager`; all in q's type.
        """
        stored_k, stored_v = self.k[layer], self.v[layer]            # (rows, K, columns, E)
        # two index tensors around a slice select (N, K, E)
        stored_k[columns] = k[0].transpose(0, 1).to(stored_k.dtype)
        stored_v[columns] = v[0].transpose(0, 1).to(stored_v.dtype)
        # one more token, which belongs to nobody
        queries = F.pad(q[0], (0, 0, 0, 1))                          # (H, N + 1, E)
        y = torch.empty_like(queries)
        for chosen, tokens, S, visible in groups:
            past_k = stored_k[chosen, :, :S].to(q.dtype)
            past_v = stored_v[chosen, :, :S].to(q.dtype)
            mine = queries[:, tokens].transpose(0, 1)                # (b, H, T, E)
            y[:, tokens] = attention(mine, past_k, past_v, visible).transpose(0, 1)
        return y[None, :, :-1]


@dataclass(eq=False)    # compared by identity, so that rows can be keys of a dict
class Row:
    """One text in the engine: what it has read, has still to read, its output, why that ended."""
    slot: int                                       # its row in the cache
    cached: list = field(default_factory=list)      # ids it has read
    unread: list = field(default_factory=list)      # ids it has still to read
    output: list = field(default_factory=list)      # ids it wrote, without the stop token
    stops: tuple = ()                               # ids that end the text
    limit: int = 0                                  # most tokens to write
    uniform: object = None                          # () -> number in [0, 1), from its own stream
    eos_bias: float = 0.0                           # log-odds added to ending at the first token
    finish_reason: str | None = None                # "stop", "length" or "context"

    @property
    def busy(self):
        """Whether there is something left to read or write."""
        return bool(self.unread) and self.finish_reason is None


# how far two ways to compute the same float32 sum of probabilities may differ by rounding (bf16
# differs by more: there the engine's text may depend on the batch)
TIE_MARGIN = 1e-5


class Engine:
    """
    Writes many texts at once. Rows are added, continued and removed at any step; each remembers
    what it has read, so that the next turn of a dialogue reads only what is new.

    slots: most rows at a time; chunk: most tokens read at once; sampling: as for `sample`.
    """

    def __init__(self, model, slots, chunk=512, **sampling):
        self.model = model.eval()
        self.cache = Cache(model, slots)
        self.free = list(range(slots))[::-1]
        self.rows = []
        self.sampling = sampling
        self.temperature = sampling.get("temperature", 1.0)
        self.chunk = chunk
        self.tokens_read = 0

    def add_row(self):
        """Add a new, empty row. There must be a free slot."""
        row = Row(self.free.pop())
        self.rows.append(row)
        return row

    def remove_row(self, row):
        """Free the row's slot."""
        self.rows.remove(row)
        self.free.append(row.slot)
        self.cache.lengths[row.slot] = 0

    def start(self, row, ids, stops, limit, uniform=None, eos_bias=0.0):
        """
        Let `row` write on after `ids` (the whole text so far) until one of the ids `stops`, or for
        `limit` tokens. What it has read of `ids` before stays cached, up to the first difference.

        uniform() -> number in [0, 1), needed unless the temperature is 0. The odds of an empty
        output are multiplied by exp(eos_bias).
        """
        assert ids and limit > 0, "nothing to read, or to write"
        assert uniform or self.temperature == 0, "sampling needs random numbers"
        # at least one token is read again: the last one's logits say what comes next
        shared, most = 0, min(len(row.cached), len(ids) - 1)
        while shared < most and row.cached[shared] == ids[shared]:
            shared += 1
        row.cached, row.unread, row.output = row.cached[:shared], ids[shared:], []
        row.stops, row.limit = tuple(stops), limit
        row.uniform, row.eos_bias = uniform, eos_bias
        row.finish_reason = None if len(ids) <= self.model.config.context else "context"
        self.cache.lengths[row.slot] = shared
        return row

    @torch.inference_mode()
    def step(self):
        """
        Let every row that writes append a token, and rows that read take what is left of a chunk.

        Returns the rows that are finished.
        """
        busy = [row for row in self.rows if row.busy]
        writing = [row for row in busy if len(row.unread) == 1]
        reading = [row for row in busy if len(row.unread) > 1]
        room = max(self.chunk, len(writing))
        pieces = []
        for row in writing + reading:
            piece = row.unread[:room]
            room -= len(piece)
            if piece:
                pieces.append((row, piece))
        if pieces:
            self.read(pieces)
        return [row for row in busy if not row.busy]

    def read(self, pieces):
        """
        Run one forward pass over new tokens of some rows, [(row, ids), ...]; draw a token for each
        row that has nothing more to read.
        """
        ids = [token for _, piece in pieces for token in piece]
        ids = torch.tensor([ids], device=self.cache.k.device)                        # (1, N)
        counts = [len(piece) for _, piece in pieces]
        x = self.model.last_hidden(ids, self.cache, [row.slot for row, _ in pieces], counts)
        self.tokens_read += ids.numel()
        drawing, ends, end = [], [], -1
        for row, piece in pieces:
            end += len(piece)
            row.cached += piece
            row.unread = row.unread[len(piece):]
            if not row.unread:
                drawing.append(row)
                ends.append(end)
        if drawing:
            logits = self.model.lm_head(x[0, ends])                                  # (b, V)
            for row, token in zip(drawing, self.draw_tokens(drawing, logits)):
                self.append(row, token)

    def draw_tokens(self, rows, logits):
        """Draw a token for each of b rows: logits (b, V)  ->  list of ids."""
        self.apply_eos_bias(rows, logits)
        u = [row.uniform() if row.uniform else 0.0 for row in rows]
        u = torch.tensor(u, dtype=torch.float64, device=logits.device)
        # other rows in the batch change rounding: would a slightly smaller or larger u have drawn
        # another token? Then the row is computed alone.
        margins = TIE_MARGIN * torch.tensor([0, -1, 1], dtype=u.dtype, device=logits.device)
        drawn = sample(logits, (u[:, None] + margins).clamp(0, 1), **self.sampling).tolist()
        tokens = []
        for i, (token, lower, upper) in enumerate(drawn):
            if lower != upper:
                token = self.recompute_uncached(rows[i], u[i:i + 1, None])
            tokens.append(token)
        return tokens

    def apply_eos_bias(self, group, logits):
        """Add each row's eos_bias to the logits (group, V) of its stops at its first token."""
        for i, row in enumerate(group):
            if row.eos_bias and not row.output:
                logits[i, list(row.stops)] += row.eos_bias * (self.temperature or 1)

    def recompute_uncached(self, row, u):
        """Draw a row's token as if there were no other row and no cache; u (1, 1)  ->  id."""
        ids = torch.tensor([row.cached], device=u.device)
        logits = self.model.lm_head(self.model.last_hidden(ids)[:, -1])              # (1, V)
        self.apply_eos_bias([row], logits)
        return sample(logits, u, **self.sampling).item()

    def append(self, row, token):
        """Append a drawn token to the row's text, or finish it."""
        if token in row.stops:
            row.finish_reason = "stop"
            return
        row.output.append(token)
        row.unread = [token]
        if len(row.output) == row.limit:
            row.finish_reason = "length"
        elif len(row.cached) == self.model.config.context:
            row.finish_reason = "context"


def rows_that_fit(model):
    """Return how many rows of a Cache fit into a GPU's free memory; on a CPU there is no limit."""
    c = model.config
    like = model.embed_tokens.weight
    if like.device.type == "cpu":
        return 1 << 30
    row_bytes = 2 * c.layers * c.kv_heads * c.context * c.dim // c.heads * like.itemsize
    # a third is left for the computation itself
    return max(1, int(torch.cuda.mem_get_info()[0] * 2 / 3) // row_bytes)


# exercise 20: many texts at once
def generate_batch(model, prompts, stops, limit, slots=64, uniforms=None, **sampling):
    """
    Continue each prompt (a list of ids) with an Engine; return the Rows in the prompts' order.

    stops, limit: as for `generate`; uniforms: for each prompt its uniform(), or None. At most
    `slots` texts, and rows_that_fit(model), are written at once; when one ends, the next prompt
    takes its slot. An Engine(model, slots, **sampling) has: free, empty when no row fits in;
    row = add_row(); start(row, ids, stops, limit, uniform); step(), until row.busy is False, which
    it always is if ids are longer than the context; remove_row(row).
    """
    slots = min(slots, len(prompts), rows_that_fit(model))
    engine = Engine(model, slots, **sampling)
    rows, unfinished = [], len(prompts)
    while unfinished:
        while engine.free and len(rows) < len(prompts):
            uniform = uniforms[len(rows)] if uniforms else None
            row = engine.add_row()
            engine.start(row, prompts[len(rows)], stops, limit, uniform)
            rows.append(row)
        engine.step()
        for row in [row for row in engine.rows if not row.busy]:
            engine.remove_row(row)
            unfinished -= 1
    return rows
