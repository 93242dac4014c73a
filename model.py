"""
A LLaMA in one file: RMSNorm, rotary positions, grouped-query attention, SwiGLU; LoRA; a cache;
sampling; an engine that writes many texts at once; and the one checkpoint format.

    B batch     T tokens in this call    S tokens a row can see, S >= T    V vocabulary
    D width     H query heads            K key/value heads                 E width of one head

Not here: dialogues and masks (platolm.py), learning (train.py). Run alone, it probes the machine.
Read before: platolm.py. Read next: train.py.
"""

import json
import math
import mmap
import os
import struct
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

# threads that wait shall sleep: if they spin, any other busy program slows torch tenfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from platolm import IGNORE, Problem, read_json


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


def explicit(q, k, v, seen):
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


def fused(q, k, v, seen):
    """The same from torch's own kernel, which never holds all (T, S) scores at once."""
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=k.size(1) < q.size(1))


ATTENTION = {"explicit": explicit, "fused": fused}


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

    @classmethod
    def load(cls, directory, attention="explicit"):
        """The model of a checkpoint directory, in the precision it was stored in."""
        return load(cls, Path(directory), attention)

    def save(self, directory):
        """Write config.json and model.safetensors, the weights last and in one move."""
        save(self, Path(directory))


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


def places(model, kind, names=None):
    """(parent, name, child) of every child of a kind; listed, so that children may be replaced."""
    return [(parent, name, child)
            for parent in model.modules() for name, child in parent.named_children()
            if isinstance(child, kind) and (names is None or name in names)]


def add_lora(model, names, rank, alpha):
    """Wrap every Linear called one of `names`, freeze all else; returns how many were wrapped."""
    if model.config.tied and "lm_head" in names:
        raise Problem("lm_head is tied to the embedding: LoRA on it would change both")
    model.requires_grad_(False)
    found = places(model, nn.Linear, names)
    if not found:
        raise Problem(f"no matrix of the model is called {' or '.join(names)}")
    for parent, name, linear in found:
        setattr(parent, name, LoRALinear(linear, rank, alpha))
    return len(found)


def merge_lora(model):
    """Put plain Linears back, with what LoRA learnt added to their weights; in place."""
    for parent, name, wrapped in places(model, LoRALinear):
        setattr(parent, name, wrapped.merge())
    return model.requires_grad_(True)


# ------------------------------------------------------------------------------------------------
# writing: a cache, a draw, an engine


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


@dataclass(eq=False)    # compared by identity, so that rows can be keys of a dict
class Row:
    """One text in the engine: what it has read, has still to read, wrote, and why it stopped."""
    slot: int                                       # its row in the cache
    cached: list = field(default_factory=list)      # ids it has read
    unread: list = field(default_factory=list)      # ids it has still to read
    wrote: list = field(default_factory=list)       # ids it wrote, without the stop token
    stops: tuple = ()
    limit: int = 0
    draw: object = None                             # () -> uniform number, from its own stream
    lean: float = 0.0                               # log-odds added to ending at the first token
    why: str = "new"                                # then "busy", then "stop", "length", "context"


# how far, by rounding in float32, one way to compute a sum of probabilities is from another
NEAR = 1e-5


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

    def join(self):
        """A new, empty row. There must be a free slot."""
        row = Row(self.free.pop())
        self.rows.append(row)
        return row

    def leave(self, row):
        """Give the row's slot to whoever joins next."""
        self.rows.remove(row)
        self.free.append(row.slot)
        self.cache.lengths[row.slot] = 0

    def write(self, row, ids, stops, limit, draw=None, lean=0.0):
        """
        Let `row` go on after `ids` (the whole text so far) until one of the ids `stops`, or for
        `limit` tokens. What it has read of `ids` before is kept, up to the first difference.
        `draw` () -> uniform number in [0, 1) is needed unless the temperature is 0. The odds of
        writing nothing at all are multiplied by exp(lean).
        """
        assert ids and limit > 0, "nothing to read, or to write"
        assert draw or self.how["temperature"] == 0, "no random numbers to draw by"
        same = next((i for i, (a, b) in enumerate(zip(row.cached, ids)) if a != b),
                    min(len(row.cached), len(ids)))
        # at least one token is read again: the last one's scores say what comes next
        same = min(same, len(ids) - 1)
        row.cached, row.unread, row.wrote = row.cached[:same], ids[same:], []
        row.stops, row.limit, row.draw, row.lean = tuple(stops), limit, draw, lean
        self.cache.lengths[row.slot] = same
        row.why = "busy" if len(ids) <= self.model.config.context else "context"
        return row

    @torch.inference_mode()
    def step(self):
        """Every busy row reads a chunk of what it has, or writes a token. Returns who is done."""
        busy = [row for row in self.rows if row.why == "busy"]
        # those with much to read do so together; the others do not wait in padding
        behind = [row for row in busy if len(row.unread) > 1]
        level = [row for row in busy if len(row.unread) == 1]
        # reading a few costs nearly as much as reading many: they wait for company
        if 4 * len(behind) < len(level):
            behind = []
        for group in (behind, level):
            if group:
                self.advance(group)
        return [row for row in busy if row.why != "busy"]

    def advance(self, group):
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
        u = [row.draw() if row.draw and len(row.unread) <= self.chunk else 0.0 for row in group]
        tokens = self.choose(group, logits, torch.tensor(u, dtype=torch.float64, device=device))
        for row, chunk, token in zip(group, chunks, tokens):
            row.cached, row.unread = row.cached + chunk, row.unread[len(chunk):]
            if not row.unread:
                self.append(row, token)

    def choose(self, group, logits, u):
        """A token for each row of a group, by the uniform numbers u; (group, V) -> list of ids."""
        self.dial(group, logits)
        # with other rows around it a sum may round otherwise: would a little more or less of u
        # have drawn another token?
        near = NEAR * torch.tensor([0, -1, 1], dtype=u.dtype, device=u.device)
        drawn = sample(logits, (u[:, None] + near).clamp(0, 1), **self.how).tolist()
        return [here if low == high or len(row.unread) > self.chunk
                else self.alone(row, u[place:place + 1, None])
                for place, (row, (here, low, high)) in enumerate(zip(group, drawn))]

    def dial(self, group, logits):
        """Shift rows' first tokens towards ending or away from it: logits (group, V), in place."""
        for place, row in enumerate(group):
            if row.lean and not row.wrote:
                logits[place, list(row.stops)] += row.lean * (self.how["temperature"] or 1)

    def alone(self, row, u):
        """A row's token as it would be drawn were there no other row and no cache."""
        ids = torch.tensor([row.cached + row.unread], device=u.device)
        logits = self.model.lm_head(self.model.hidden(ids)[:, -1])                   # (1, V)
        self.dial([row], logits)
        return sample(logits, u, **self.how).item()

    def append(self, row, token):
        """Take a drawn token into the text, or end it and say why."""
        if token in row.stops:
            row.why = "stop"
            return
        row.wrote.append(token)
        row.unread = [token]
        if len(row.wrote) == row.limit:
            row.why = "length"
        elif len(row.cached) == self.model.config.context:
            row.why = "context"


def room(model):
    """How many rows of a Cache a GPU has memory for; a CPU is not asked."""
    c, like = model.config, model.embed_tokens.weight
    if like.device.type == "cpu":
        return 1 << 30
    row = 2 * c.layers * c.kv_heads * (c.context + 1) * c.dim // c.heads * like.itemsize
    # a third is left for the work itself
    return max(1, int(torch.cuda.mem_get_info()[0] * 2 / 3) // row)


def generate(model, prompts, stops, limit, slots=64, draws=None, **how):
    """Continue each prompt (a list of ids). Returns the Rows, in the order of the prompts."""
    slots = min(slots, len(prompts), room(model))
    engine, unfinished, rows = Engine(model, slots, **how), len(prompts), []
    while unfinished:
        while engine.free and len(rows) < len(prompts):
            row = engine.join()
            engine.write(row, prompts[len(rows)], stops, limit, draws[len(rows)] if draws else None)
            rows.append(row)
        engine.step()
        for row in [row for row in engine.rows if row.why != "busy"]:
            engine.leave(row)
            unfinished -= 1
    return rows


# ------------------------------------------------------------------------------------------------
# the checkpoint format: a Hugging Face Llama directory

# our name for a size, and theirs
NAMES = {"vocab": "vocab_size", "dim": "hidden_size", "layers": "num_hidden_layers",
         "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
         "hidden": "intermediate_size", "context": "max_position_embeddings",
         "theta": "rope_theta", "eps": "rms_norm_eps", "tied": "tie_word_embeddings"}
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
          "U8": torch.uint8, "BOOL": torch.bool}
CODES = {dtype: code for code, dtype in DTYPES.items()}


def sensible(value, kind):
    """Whether a value of a config can be meant: a switch, or a number above 0."""
    if kind is bool:
        return isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else int) and value > 0


def checked(config, path):
    """A config whose numbers came from a file, if a model can be made of them."""
    for ours, theirs in NAMES.items():
        value = getattr(config, ours)
        if not sensible(value, Config.__annotations__[ours]):
            raise Problem(f"{path}: {theirs} is missing or makes no sense: {value!r}")
    if config.dim % (2 * config.heads) or config.heads % config.kv_heads:
        raise Problem(f"{path}: {config.dim} dimensions, {config.heads} heads and "
                      f"{config.kv_heads} key/value heads do not divide each other")
    return config


def read_config(directory):
    """Our Config from a directory's config.json."""
    path = directory / "config.json"
    page = read_json(path)
    if page.get("model_type") != "llama":
        raise Problem(f"{path} describes a {page.get('model_type')!r} model, not a 'llama'")
    if page.get("num_key_value_heads") is None:
        page["num_key_value_heads"] = page.get("num_attention_heads")
    page.setdefault("tie_word_embeddings", False)
    # transformers 5 keeps theta in the first of these
    ropes = [page.get(key) or {} for key in ("rope_parameters", "rope_scaling")]
    if not all(isinstance(rope, dict) for rope in ropes):
        raise Problem(f"{path}: rope_parameters or rope_scaling makes no sense")
    page.setdefault("rope_theta", ropes[0].get("rope_theta", 10000.0))
    refuse(path, page, [rope.get("rope_type", rope.get("type", "default")) for rope in ropes])
    config = checked(Config(**{ours: page.get(theirs) for ours, theirs in NAMES.items()}), path)
    if page.get("head_dim") not in (None, config.dim // config.heads):
        raise Problem(f"{path}: heads of another width (head_dim) are not supported")
    return config


def refuse(path, page, kinds):
    """A Problem if a config asks for what this LLaMA has not; kinds: of rotary positions."""
    strange = {"rope scaling": any(kind != "default" for kind in kinds),
               "a quantised model": page.get("quantization_config") is not None,
               "biases (attention_bias)": page.get("attention_bias", False),
               "biases (mlp_bias)": page.get("mlp_bias", False),
               "an activation other than silu": page.get("hidden_act", "silu") != "silu"}
    for what, is_so in strange.items():
        if is_so:
            raise Problem(f"{path} asks for {what}, which is not supported")


def write_config(config, directory, dtype):
    """config.json in the words of transformers 4 and 5 and of llama.cpp."""
    page = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    page |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
             "head_dim": config.dim // config.heads, "attention_bias": False, "mlp_bias": False,
             "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
             "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": str(dtype).split(".")[-1]}
    (directory / "config.json").write_text(json.dumps(page, indent=2) + "\n")


def header(path, size, data):
    """
    The table of a safetensors file, {name: {"dtype", "shape", "data_offsets"}}, and where the
    tensors begin. Everything it claims is checked against the file's size first.
    """
    n = struct.unpack("<Q", data[:8])[0] if size >= 8 else size
    # no model has so many tensors that their table is larger than 100 MB
    if n > min(size - 8, 100 << 20):
        raise Problem(f"{path} is cut off or no safetensors file: its header would be {n:,} bytes "
                      f"long, the file is {size:,}")
    try:
        entries = json.loads(data[8:8 + n])
        entries.pop("__metadata__", None)
        spans, place = [], 0
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            numbers = [begin, end, *entry["shape"]]
            if not all(type(n) is int and 0 <= n <= size for n in numbers):
                raise ValueError(f"{name!r} has {numbers}")
            spans.append((begin, end, math.prod(entry["shape"]), entry["dtype"], name))
        for begin, end, count, dtype, name in sorted(spans):
            if begin != place or end - begin != count * DTYPES[dtype].itemsize:
                raise Problem(f"{path}: the header is wrong about {name!r}: {count} numbers of "
                              f"{dtype} do not fill bytes {begin} to {end}")
            place = end
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Problem(f"{path}: the safetensors header makes no sense ({error!r})") from None
    if place != size - 8 - n:
        raise Problem(f"{path} is cut off: {place:,} bytes of tensors are promised, "
                      f"{size - 8 - n:,} are there")
    return entries, 8 + n


def read_safetensors(path):
    """{name: tensor} of a safetensors file; views of the file, nothing is copied yet."""
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Problem(f"{path} is an empty file") from None
    entries, start = header(path, len(data), data)
    tensors = {}
    for name, entry in entries.items():
        dtype, count = DTYPES[entry["dtype"]], math.prod(entry["shape"])
        flat = torch.empty(0, dtype=dtype) if count == 0 else torch.frombuffer(
            data, dtype=dtype, count=count, offset=start + entry["data_offsets"][0])
        tensors[name] = flat.view(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """Write {name: tensor}: the whole file or, if anything goes wrong, none of it."""
    table, place = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        end = place + tensor.numel() * tensor.itemsize
        table[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape),
                       "data_offsets": [place, end]}
        place = end
    head = json.dumps(table).encode()
    # spaces up to a multiple of 8, so that numbers begin where processors like to read them
    head += b" " * (-len(head) % 8)
    part = Path(f"{path}.tmp")
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    part.replace(path)


def weight_file(directory):
    """The file that holds a directory's weights or, where they are in parts, names those parts."""
    file = Path(directory) / "model.safetensors"
    index = Path(f"{file}.index.json")
    return file if file.exists() or not index.exists() else index


def shards(index):
    """The files that an index names, all of its own directory."""
    weight_map = read_json(index).get("weight_map")
    files = weight_map.values() if isinstance(weight_map, dict) else [None]
    if not all(isinstance(file, str) and Path(file).name == file for file in files):
        raise Problem(f"{index} does not name files of its own directory")
    return sorted(set(files))


def weights(directory):
    """{name: tensor} of a checkpoint, from one file or from the shards its index names."""
    file = weight_file(directory)
    files = shards(file) if file.suffix == ".json" else [file.name]
    return {name: tensor for part in files
            for name, tensor in read_safetensors(directory / part).items()}


def load(cls, directory, attention):
    """The model of a directory."""
    return built(cls, read_config(directory), weights(directory), directory, attention)


def built(cls, config, tensors, source, attention="explicit"):
    """A model of this shape with these tensors {name: tensor}, named as in a checkpoint."""
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    # a shape without storage: the tensors of the file move in
    with torch.device("meta"):
        model = cls(config, attention)
    if config.tied:
        tensors["lm_head.weight"] = tensors.get("embed_tokens.weight")
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if tensors.get(name) is None:
            raise Problem(f"{source}: the weights lack {name}")
        if tensors[name].shape != shape:
            raise Problem(f"{source}: {name} has shape {tuple(tensors[name].shape)}, but its "
                          f"config asks for {tuple(shape)}")
        if not tensors[name].is_floating_point():
            raise Problem(f"{source}: {name} holds {tensors[name].dtype}, no weights")
    # old files hold the rotary speeds, too, which follow from the config
    if more := [name for name in tensors if name not in expected and "rotary" not in name]:
        raise Problem(f"{source}: the weights hold {more[0]}, which this LLaMA has not")
    model.load_state_dict({name: tensors[name].clone() for name in expected}, assign=True)
    if config.tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def save(model, directory):
    directory.mkdir(parents=True, exist_ok=True)
    write_config(model.config, directory, model.embed_tokens.weight.dtype)
    tensors = {name if name.startswith("lm_head") else f"model.{name}": tensor
               for name, tensor in model.state_dict().items()}
    # a shared matrix is stored once
    if model.config.tied:
        del tensors["lm_head.weight"]
    write_safetensors(directory / "model.safetensors", tensors)
    # what was here in parts is another model now
    (directory / "model.safetensors.index.json").unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------
# what this machine does best


def step_time(device, precision, attention):
    """
    Seconds of one training step of the default model on about 1,024 tokens, the median of many.

    Every step has another shape, as in training: some kernels pay for each shape they first meet.
    """
    import time
    model, times = Llama(Config(), attention).to(device), []
    for length in range(64, 192, 8):
        ids = torch.arange(1024 // length * length, device=device).view(-1, length) % Config.vocab
        # as in a dialogue, a third of the tokens is learnt
        targets = ids.masked_fill(ids % 3 > 0, IGNORE)
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = nll(model, ids, targets).mean()
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def machine(precision=None, attention=None, path=Path("runs/machine.json")):
    """
    Where and how to compute: {"device", "precision", "attention"}; arguments override.

    Of a CPU it is measured once, by a few training steps of the default model in each form, and
    remembered in `path` for every later stage.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = {"device": "cuda", "precision": "bf16", "attention": "fused"}
    if device == "cpu" and not path.exists():
        print("once for this machine: timing a training step in four forms", flush=True)
        times = {(p, a): step_time(device, p, a) for p in ("float32", "bf16") for a in ATTENTION}
        # half the digits have to be worth it
        best = min(times, key=lambda form: times[form] * (1.2 if form[0] == "bf16" else 1))
        print("  " + ", ".join(f"{t * 1000:.0f} ms in {p} with {a} attention"
                               for (p, a), t in times.items()) + f": {' and '.join(best)} it is")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"device": device, "precision": best[0], "attention": best[1]}))
    if device == "cpu":
        fast = read_json(path)
    return fast | {name: value for name, value in
                   (("precision", precision), ("attention", attention)) if value}


if __name__ == "__main__":
    print("this machine computes fastest in:", ", ".join(machine().values()))
