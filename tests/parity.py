"""
Is ours the LLaMA that everybody else means? Logits and ids against transformers.

    python -m tests.parity [dialogues.json | dialogues.jsonl]

Run by `make parity`, in an environment of its own. Random weights, float32, every shape both ways:
our directory opened there, and one saved there opened here.
"""

import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from model import Config, Llama
from platolm import Tokenizer

SHAPE = {"vocab": 400, "dim": 64, "layers": 3, "heads": 4, "hidden": 112, "context": 128}
# none begins with a space: there transformers 5 leaves out the dummy prefix of every LLaMA
NASTY = ["", "two  spaces  ", "tab\tand\nnew\r\nline", "emoji 🦜, ümläut", "</s> is text", "日本語",
         "<s>Human: <unk>", "12.5", "\x01", "<0x0A>", "e\u0301", "trailing ", "\n\n"]


def far(a, b):
    """The largest difference between two tensors."""
    return (a - b).abs().max().item()


@torch.inference_mode()
def logits(kv_heads, tied, folder):
    """Largest differences of logits: ours opened there, and theirs opened here."""
    ids = torch.randint(400, (2, 50))
    ours = Llama(Config(**SHAPE, kv_heads=kv_heads, tied=tied, theta=5000.0))
    for weight in ours.parameters():
        weight.normal_(std=0.1)
    ours.save(folder)
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    there = far(ours(ids), theirs(ids).logits)

    config = LlamaConfig(vocab_size=400, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=kv_heads, tie_word_embeddings=tied,
                         initializer_range=0.1)
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(folder / "theirs", max_shard_size="100KB")
    return there, far(Llama.load(folder / "theirs")(ids), theirs(ids).logits)


def texts(path):
    """The turns of a file of dialogues, a JSON array or JSONL."""
    text = Path(path).read_text(encoding="utf-8")
    records = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    return [turn["value"] for record in records for turn in record["conversations"]]


def ids(said, vocab, folder):
    """How many of some texts get other ids there than here."""
    tokenizer = Tokenizer.learn(said, vocab)
    tokenizer.save(folder)
    Llama(Config(**{**SHAPE, "vocab": tokenizer.vocab})).save(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    return [text for text in said if tokenizer.encode(text) != theirs.encode(
        text, add_special_tokens=False, split_special_tokens=True)]


def main():
    torch.manual_seed(0)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kv_heads, tied in itertools.product((1, 2, 4), (True, False)):
            there, here = logits(kv_heads, tied, Path(folder) / f"{kv_heads}{tied}")
            failed |= max(there, here) > 1e-4
            print(f"{kv_heads} of 4 heads have keys, {'tied' if tied else 'untied'}: logits differ by "
                  f"{there:.1e} opened there, {here:.1e} opened here")
        said = texts(sys.argv[1])[:6000] if len(sys.argv) > 1 else texts("data/example.jsonl")
        other = ids(said + NASTY, 2000, Path(folder) / "tokenizer")
        failed |= bool(other)
        print(f"{len(said) + len(NASTY):,} texts: {len(other)} get other ids there"
              + "".join(f"\n    {text!r}" for text in other[:5]))
    sys.exit("parity is broken" if failed else 0)


if __name__ == "__main__":
    main()
