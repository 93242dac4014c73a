"""
A LLaMA in one file: RMSNorm, rotary positions, grouped-query attention, SwiGLU; LoRA; a cache;
sampling; an engine that writes many texts at once; and the one checkpoint format.

    B batch     T tokens in this call    S tokens a row can see, S >= T    V vocabulary
    D width     H query heads            K key/value heads                 E width of one head

Not here: dialogues and masks (platolm.py), learning (train.py).
Read before: platolm.py. Read next: train.py.
"""

import math
import os
from dataclasses import dataclass, field
from functools import partial

# threads that wait shall sleep: if they spin, any other busy program slows torch tenfold
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
    vocab: int = 1280
    dim: int = 96           # D
    layers: int = 3
    heads: int = 6          # H
    kv_heads: int = 6       # K; fewer than H: neighbouring query heads share keys and values
    hidden: int = 256       # width inside the feed-forward
    context: int = 384      # the longest text it is meant to read
    theta: float = 10000.0  # the slowest rotation takes about 2 pi theta tokens for a turn
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

    def forward(self, x):
        x32 = x.float()
        scale = torch.rsqrt(x32.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        return (x32 * scale).type_as(x) * self.weight


def rotary(positions, config):
    """
    The angles of rotary positions (Su et al. 2021, arXiv 2104.09864) as cos and sin.

    positions (T,) or (B, 1, T)  ->  two tensors of shape positions.shape + (E / 2,)
    """
    half = config.dim // config.heads // 2
    speeds = config.theta ** (-torch.arange(half, device=positions.device) / half)
    angles = positions[..., None] * speeds
    return angles.cos(), angles.sin()


def rotate(x, rope):
    """
    Rotate each pair (i, i + E/2) of x (B, heads, T, E) by its position's angles.

    A product of two rotated vectors depends on the distance between them alone. This is the
    half-split layout of Hugging Face; Meta's own files keep the pairs side by side.
    """
    cos, sin = (part.to(x.dtype) for part in rope)
    a, b = x.chunk(2, dim=-1)                                        # (B, heads, T, E/2) each
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def eager(q, k, v, seen):
    """
    Attention spelled out: softmax(q k' / sqrt(E) + mask) v.

    q (B, H, T, E), k and v (B, K, S, E), seen: True where row t may look at s, (T, S) or
    (B, 1, T, S), or None for "all up to itself". Returns (B, H, T, E).
    """
    H, T, E = q.shape[1:]
    K, S = k.shape[1:3]
    if seen is None:
        seen = torch.ones(T, S, dtype=torch.bool, device=q.device).tril()
    # heads [k1, k2] become [k1, k1, k2, k2]: neighbours share
    k, v = (x.repeat_interleave(H // K, dim=1) if K < H else x for x in (k, v))
    mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -torch.inf)
    scores = q @ k.transpose(2, 3) / math.sqrt(E) + mask             # (B, H, T, S)
    return scores.softmax(dim=-1) @ v


def sdpa(q, k, v, seen):
    """The same from torch's own kernel, which never holds all (T, S) scores at once."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=k.size(1) < q.size(1))


ATTENTION = {"explicit": eager, "fused": sdpa}


class Attention(nn.Module):
    """Each token gathers from itself and those before it."""

    def __init__(self, config):
        super().__init__()
        D, self.E = config.dim, config.dim // config.heads
        self.q_proj = nn.Linear(D, config.heads * self.E, bias=False)
        self.k_proj = nn.Linear(D, config.kv_heads * self.E, bias=False)
        self.v_proj = nn.Linear(D, config.kv_heads * self.E, bias=False)
        self.o_proj = nn.Linear(config.heads * self.E, D, bias=False)

    def forward(self, x, rope, look):
        """
        x (B, T, D)  ->  (B, T, D). `rope` are the angles; look(q, k, v) lets each token look at
        those it may see: here, or in a cache.
        """
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, -1, self.E).transpose(1, 2)    # (B, H, T, E)
        k = self.k_proj(x).view(B, T, -1, self.E).transpose(1, 2)    # (B, K, T, E)
        v = self.v_proj(x).view(B, T, -1, self.E).transpose(1, 2)    # (B, K, T, E)
        y = look(rotate(q, rope), rotate(k, rope), v)                # (B, H, T, E)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): one half decides how much of the other passes."""

    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.up_proj = nn.Linear(config.dim, config.hidden, bias=False)
        self.down_proj = nn.Linear(config.hidden, config.dim, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """Attention, then feed-forward; each adds to the stream that runs through the model."""

    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.eps)
        self.mlp = FeedForward(config)

    def forward(self, x, rope, look):
        x = x + self.self_attn(self.input_layernorm(x), rope, look)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The whole model. Its parts are called as in Hugging Face's checkpoints."""

    def __init__(self, config, attention="explicit"):
        super().__init__()
        self.config, self.attend = config, ATTENTION[attention]
        # in training: keep only what each layer reads, and compute the rest again on the way back
        self.recompute = False
        self.embed_tokens = nn.Embedding(config.vocab, config.dim)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, config.eps)
        self.lm_head = nn.Linear(config.dim, config.vocab, bias=False)
        # D ** -0.5 keeps the size of a vector about the same through most matrices
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=config.dim ** -0.5)
        if config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def hidden(self, ids, cache=None, rows=None):
        """
        What the last layer knows at each token: ids (B, T)  ->  (B, T, D).

        With a cache, row b of ids continues what row rows[b] of the cache has read; the caller
        then adds to cache.lengths how many of the T tokens were meant (the rest is padding).
        """
        if cache is None:
            positions = torch.arange(ids.size(1), device=ids.device)
            looks = [partial(self.attend, seen=None)] * len(self.layers)
        else:
            positions, looks = cache.open(self.attend, rows, ids.size(1))
        rope = rotary(positions, self.config)
        x = self.embed_tokens(ids)                                   # (B, T, D)
        for layer, look in zip(self.layers, looks):
            if self.recompute:
                x = checkpoint(layer, x, rope, look, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, rope, look)
        return self.norm(x)

    def forward(self, ids, where=None):
        """
        Scores for the token after each token: ids (B, T)  ->  logits (B, T, V); or only after
        those `where` (B, T) is True, N of them  ->  (N, V).
        """
        x = self.hidden(ids)
        return self.lm_head(x if where is None else x[where])


def nll(model, ids, targets):
    """
    How surprised the model is by each learnt token: -log p in nats.

    ids and targets (B, T), targets IGNORE where nothing is learnt  ->  (number of learnt tokens,)
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
        self.linear, self.scale = linear, alpha / rank
        where = linear.weight.device
        self.A = nn.Parameter(torch.randn(rank, linear.in_features, device=where)
                              / math.sqrt(linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank, device=where))

    def forward(self, x):
        A, B = self.A.to(x.dtype), (self.B * self.scale).to(x.dtype)
        return self.linear(x) + F.linear(F.linear(x, A), B)

    @torch.no_grad()
    def merge(self):
        """The plain Linear that computes the same."""
        change = self.scale * self.B.float() @ self.A.float()
        self.linear.weight.copy_(self.linear.weight.float() + change)
        return self.linear


def find_modules(model, kind, names=None):
    """(parent, name, child) of every child of a kind; listed, so that children may be replaced."""
    return [(parent, name, child)
            for parent in model.modules() for name, child in parent.named_children()
            if isinstance(child, kind) and (names is None or name in names)]


def add_lora(model, names, rank, alpha):
    """Wrap every Linear called one of `names`, freeze all else; returns how many were wrapped."""
    if model.config.tied and "lm_head" in names:
        raise UserError("lm_head is tied to the embedding: LoRA on it would change both")
    model.requires_grad_(False)
    found = find_modules(model, nn.Linear, names)
    if not found:
        raise UserError(f"no matrix of the model is called {' or '.join(names)}")
    for parent, name, linear in found:
        setattr(parent, name, LoRALinear(linear, rank, alpha))
    return len(found)


def merge_lora(model):
    """Put plain Linears back, with what LoRA learnt added to their weights; in place."""
    for parent, name, wrapped in find_modules(model, LoRALinear):
        setattr(parent, name, wrapped.merge())
    return model.requires_grad_(True)


# ------------------------------------------------------------------------------------------------
# writing, the plain way: draw a token, append it, read everything again


def sample(logits, u, temperature=1.0, top_k=0, top_p=1.0):
    """
    Draw tokens by inverse CDF: logits (B, V), u (B, n) uniform in [0, 1)  ->  ids (B, n).

    temperature 0 takes the likeliest. top_k keeps that many (0: all); top_p keeps the fewest of
    the likeliest tokens that together reach p. The same u gives the same token in any batch, but
    for rounding: where u falls within a rounding error of a border, a neighbour may be drawn.
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True).expand(u.shape)
    p, ids = (logits.float() / temperature).softmax(dim=-1), None
    if top_k or top_p < 1:
        p, ids = p.sort(dim=-1, descending=True, stable=True)
        kept = p.cumsum(dim=-1) - p < top_p
        # the likeliest always stays, also for a top_p of 0
        kept[:, 0] = True
        if top_k:
            kept[:, top_k:] = False
        p = p * kept
    reach = p.cumsum(dim=-1)                                         # (B, V)
    total = reach[:, -1:].contiguous()
    place = torch.searchsorted(reach, u.to(reach) * total, right=True)
    # u may round to 1, and then no sum lies beyond it: the last kept token is meant
    place = place.minimum(torch.searchsorted(reach, total))
    return place if ids is None else ids.gather(1, place)


@torch.inference_mode()
def generate(model, ids, stops, limit, draw=None, **how):
    """
    Write on after `ids`, the plain way: one text, and all of it read again for every token.

    stops: ids that end a text; limit: most tokens; draw () -> uniform number in [0, 1), not needed
    at temperature 0; how: temperature, top_k, top_p of `sample`. Returns the ids that were written,
    without the stop, and why they end: "stop", "length" or "context".
    """
    output = []
    while len(ids) + len(output) <= model.config.context:
        logits = model(torch.tensor([ids + output], device=model.norm.weight.device))[:, -1]
        u = torch.tensor([[draw() if draw else 0.0]], dtype=torch.float64, device=logits.device)
        token = sample(logits, u, **how).item()
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
    Keys and values of what each row has read; row r has read lengths[r] tokens.

    Rows are ragged. A shorter row's padding is written beyond its end, where nobody looks,
    and the next real token takes its place; past the last column it goes into one spare.
    """

    def __init__(self, model, rows):
        c, like = model.config, model.embed_tokens.weight
        # one column more than the context: the spare one for padding
        shape = (c.layers, rows, c.kv_heads, c.context + 1, c.dim // c.heads)
        self.k = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.v = torch.zeros_like(self.k)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=like.device)

    def open(self, attend, rows, T):
        """
        For reading T more tokens in each of `rows` (B,), or in all rows for None: their positions
        (B, 1, T), and per layer a function look(q, k, v) that remembers k and v, and attends.
        """
        lengths = self.lengths if rows is None else self.lengths[rows]
        last = self.k.size(3) - 1
        new = torch.arange(T, device=lengths.device)
        positions = (lengths[:, None, None] + new).clamp(max=last)   # (B, 1, T)
        numbers = torch.arange(len(lengths), device=lengths.device) if rows is None else rows
        # two index tensors around a slice: what they select has shape (B, T, K, E)
        new_columns = (numbers[:, None], slice(None), positions[:, 0])

        # rows of like length look together, so that few read on to the end of the longest of all;
        # a GPU would rather have one big group. All rows are a view of the cache, and no copy
        groups, size = [], 16 if lengths.device.type == "cpu" else len(lengths)
        for some in [None] if rows is None else lengths.argsort().split(size):
            place = positions if some is None else positions[some]   # (b, 1, T)
            S = int(place.max()) + 1
            seen = torch.arange(S, device=lengths.device) <= place[..., None]    # (b, 1, T, S)
            groups.append((some, S, seen))

        def look(layer, q, k, v):
            y = torch.empty_like(q)
            for memory, new in ((self.k[layer], k), (self.v[layer], v)):
                memory[new_columns] = new.transpose(1, 2).to(memory.dtype)
            for some, S, seen in groups:
                past = [memory[layer][:, :, :S] for memory in (self.k, self.v)]
                if some is None:
                    return attend(q, *(x.to(q.dtype) for x in past), seen)
                past = [x.index_select(0, numbers[some]).to(q.dtype) for x in past]
                y[some] = attend(q[some], *past, seen)               # past (b, K, S, E)
            return y

        return positions, [partial(look, layer) for layer in range(len(self.k))]


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
        """Whether there is something to read or write for it."""
        return bool(self.unread) and self.finish_reason is None


# how far, by rounding in float32, one way to compute a sum of probabilities is from another
TIE_MARGIN = 1e-5


class Engine:
    """
    Writes many texts at once. Rows join, read on, write and leave at any step; each remembers
    what it has read, so that the next turn of a dialogue reads only what is new.
    """

    def __init__(self, model, slots, temperature=1.0, top_k=0, top_p=1.0, chunk=512):
        self.model, self.cache = model.eval(), Cache(model, slots)
        self.free, self.rows = list(range(slots))[::-1], []
        self.how = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        # tokens to read at once, and tokens read so far
        self.chunk, self.read = chunk, 0

    def add_row(self):
        """A new, empty row. There must be a free slot."""
        row = Row(self.free.pop())
        self.rows.append(row)
        return row

    def remove_row(self, row):
        """Give the row's slot to whoever joins next."""
        self.rows.remove(row)
        self.free.append(row.slot)
        self.cache.lengths[row.slot] = 0

    def start(self, row, ids, stops, limit, uniform=None, eos_bias=0.0):
        """
        Let `row` go on after `ids` (the whole text so far) until one of the ids `stops`, or for
        `limit` tokens. What it has read of `ids` before is kept, up to the first difference.
        `uniform` () -> number in [0, 1) is needed unless the temperature is 0. The odds of
        writing nothing at all are multiplied by exp(eos_bias).
        """
        assert ids and limit > 0, "nothing to read, or to write"
        assert uniform or self.how["temperature"] == 0, "no random numbers to draw by"
        same = next((i for i, (a, b) in enumerate(zip(row.cached, ids)) if a != b),
                    min(len(row.cached), len(ids)))
        # at least one token is read again: the last one's scores say what comes next
        same = min(same, len(ids) - 1)
        row.cached, row.unread, row.output = row.cached[:same], ids[same:], []
        row.stops, row.limit, row.uniform, row.eos_bias = tuple(stops), limit, uniform, eos_bias
        self.cache.lengths[row.slot] = same
        row.finish_reason = None if len(ids) <= self.model.config.context else "context"
        return row

    @torch.inference_mode()
    def step(self):
        """Every busy row reads a chunk of what it has, or writes a token. Returns who is done."""
        busy = [row for row in self.rows if row.busy]
        # those with much to read do so together; the others do not wait in padding
        behind = [row for row in busy if len(row.unread) > 1]
        level = [row for row in busy if len(row.unread) == 1]
        # reading a few costs nearly as much as reading many: they wait for company
        if 4 * len(behind) < len(level):
            behind = []
        for group in (behind, level):
            if group:
                self.forward_group(group)
        return [row for row in busy if not row.busy]

    def forward_group(self, group):
        """One forward pass over the unread tokens of a group of rows, and a draw for each."""
        device, chunks = self.cache.lengths.device, [row.unread[:self.chunk] for row in group]
        counts = torch.tensor([len(chunk) for chunk in chunks], device=device)
        slots = torch.tensor([row.slot for row in group], device=device)
        # a few rows of the cache are copied out, all rows are a view without a copy: when most of
        # them are busy, a GPU takes all, and the idle ones read padding
        whole = device.type != "cpu" and 2 * len(group) > len(self.cache.lengths)
        where = slots if whole else torch.arange(len(group), device=device)
        T = max(map(len, chunks))
        ids = [[0] * T] * (len(self.cache.lengths) if whole else len(group))
        for i, chunk in zip(where.tolist(), chunks):
            ids[i] = chunk + [0] * (T - len(chunk))
        ids = torch.tensor(ids, device=device)                                       # (B, T)
        x = self.model.hidden(ids, self.cache, None if whole else slots)             # (B, T, D)
        self.cache.lengths[slots] += counts
        self.read += sum(map(len, chunks))
        logits = self.model.lm_head(x[where, counts - 1])                            # (group, V)
        # a row whose text goes on after this chunk draws nothing yet
        u = [row.uniform() if row.uniform and len(row.unread) <= self.chunk else 0.0 for row in group]
        tokens = self.draw_tokens(group, logits, torch.tensor(u, dtype=torch.float64, device=device))
        for row, chunk, token in zip(group, chunks, tokens):
            row.cached, row.unread = row.cached + chunk, row.unread[len(chunk):]
            if not row.unread:
                self.append(row, token)

    def draw_tokens(self, group, logits, u):
        """A token for each row of a group, by the uniform numbers u; (group, V) -> list of ids."""
        self.apply_eos_bias(group, logits)
        # with other rows around it a sum may round otherwise: would a little more or less of u
        # have drawn another token?
        near = TIE_MARGIN * torch.tensor([0, -1, 1], dtype=u.dtype, device=u.device)
        drawn = sample(logits, (u[:, None] + near).clamp(0, 1), **self.how).tolist()
        return [here if low == high or len(row.unread) > self.chunk
                else self.recompute_uncached(row, u[place:place + 1, None])
                for place, (row, (here, low, high)) in enumerate(zip(group, drawn))]

    def apply_eos_bias(self, group, logits):
        """Shift rows' first tokens towards ending or away from it: logits (group, V), in place."""
        for place, row in enumerate(group):
            if row.eos_bias and not row.output:
                logits[place, list(row.stops)] += row.eos_bias * (self.how["temperature"] or 1)

    def recompute_uncached(self, row, u):
        """A row's token as it would be drawn were there no other row and no cache."""
        ids = torch.tensor([row.cached + row.unread], device=u.device)
        logits = self.model.lm_head(self.model.hidden(ids)[:, -1])                   # (1, V)
        self.apply_eos_bias([row], logits)
        return sample(logits, u, **self.how).item()

    def append(self, row, token):
        """Take a drawn token into the text, or end it and say why."""
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
    """How many rows of a Cache a GPU has memory for; a CPU is not asked."""
    c, like = model.config, model.embed_tokens.weight
    if like.device.type == "cpu":
        return 1 << 30
    row = 2 * c.layers * c.kv_heads * (c.context + 1) * c.dim // c.heads * like.itemsize
    # a third is left for the work itself
    return max(1, int(torch.cuda.mem_get_info()[0] * 2 / 3) // row)


def generate_batch(model, prompts, stops, limit, slots=64, draws=None, **how):
    """Continue each prompt (a list of ids). Returns the Rows, in the order of the prompts."""
    slots = min(slots, len(prompts), rows_that_fit(model))
    engine, unfinished, rows = Engine(model, slots, **how), len(prompts), []
    while unfinished:
        while engine.free and len(rows) < len(prompts):
            row = engine.add_row()
            engine.start(row, prompts[len(rows)], stops, limit, draws[len(rows)] if draws else None)
            rows.append(row)
        engine.step()
        for row in [row for row in engine.rows if not row.busy]:
            engine.remove_row(row)
            unfinished -= 1
    return rows
