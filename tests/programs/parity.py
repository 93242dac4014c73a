"""
Is ours the LLaMA that everybody else means? Logits and ids against transformers, peft,
sentencepiece and Meta's layout.

    python -m tests.programs.parity [dialogues.json | dialogues.jsonl]

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
from peft import LoraConfig, PeftModel, get_peft_model
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from data.checkpoint import save_model, load_model
from data.formats.convert import open_any, write_adapter
from model import Config, Llama, LoRALinear, add_lora
from platolm import Tokenizer, prompt, to_messages
from tests.programs.bench_train import NAMES

SHAPE = {"vocab": 400, "dim": 64, "layers": 3, "heads": 4, "hidden": 112, "context": 128}
# none begins with a space: there transformers 5 leaves out the dummy prefix of every LLaMA
LEADING = [" leading", "   three", "\tand a tab", " \n", " 🦜"]
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
    save_model(ours, folder)
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    there = far(ours(ids), theirs(ids).logits)

    config = LlamaConfig(vocab_size=400, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=kv_heads, tie_word_embeddings=tied,
                         initializer_range=0.1)
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(folder / "theirs", max_shard_size="100KB")
    return there, far(load_model(folder / "theirs")(ids), theirs(ids).logits)


@torch.inference_mode()
def adapters(folder):
    """Largest differences of logits, in float64: our adapter opened by peft, and peft's here."""
    ids = torch.randint(400, (2, 50))
    base = Llama(Config(**SHAPE, kv_heads=2, tied=False))
    save_model(base, folder / "base")
    add_lora(base, NAMES, 8, 20)
    for part in base.modules():
        if isinstance(part, LoRALinear):
            part.B.normal_(std=0.05)
    write_adapter(base, folder / "ours", folder / "base")
    start = lambda: LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(start(), folder / "ours").eval()
    there = far(base.double()(ids), theirs.double()(ids).logits)

    theirs = get_peft_model(start(), LoraConfig(r=4, lora_alpha=12, target_modules=NAMES)).eval()
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            weight.normal_(std=0.05)
    theirs.save_pretrained(folder / "theirs")
    merged = open_any(folder / "theirs", folder / "base")
    return there, far(merged.double()(ids), theirs.double()(ids).logits)


@torch.inference_mode()
def meta(folder):
    """Meta's layout of a model against transformers: converted, and with its rows as they are."""
    ids = torch.randint(400, (2, 50))
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=400, hidden_size=64, intermediate_size=112, num_hidden_layers=2, rms_norm_eps=1e-5,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1)).eval()
    names = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
             "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
             "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
             "mlp.up_proj": "feed_forward.w3", "post_attention_layernorm": "ffn_norm",
             "input_layernorm": "attention_norm", "embed_tokens": "tok_embeddings", "lm_head": "output"}
    for permuted in (True, False):
        tensors = {}
        for name, tensor in model.state_dict().items():
            if permuted and ("q_proj" in name or "k_proj" in name):
                # row by row: pair i of a head is rows i and i + 8 there, 2 i and 2 i + 1 at Meta's
                order = [16 * (row // 16) + row % 2 * 8 + row % 16 // 2 for row in range(len(tensor))]
                tensor = tensor[order]
            for theirs, metas in names.items():
                name = name.replace(theirs, metas)
            tensors[name.removeprefix("model.")] = tensor.clone()
        folder.mkdir(exist_ok=True)
        torch.save(tensors, folder / "consolidated.00.pth")
        (folder / "params.json").write_text(json.dumps(
            {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5}))
        yield far(open_any(folder)(ids), model(ids).logits)


def templates(folder, tokenizer):
    """How many dialogues get other ids by our chat template there than by our prompt here."""
    records = [json.loads(row) for row in Path("data/example.jsonl").read_text().splitlines()]
    wrong = 0
    for speaker in ("human", "gpt"):
        tokenizer.speaker = speaker
        tokenizer.save(folder)
        theirs = AutoTokenizer.from_pretrained(folder)
        for record in records:
            talk = record["conversations"][:4 if speaker == "human" else 3]
            wrong += prompt(talk, tokenizer, speaker) != theirs.apply_chat_template(
                to_messages(talk), return_dict=False)
    return wrong, 2 * len(records)


def texts(path):
    """The turns of a file of dialogues, a JSON array or JSONL."""
    text = Path(path).read_text(encoding="utf-8")
    records = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    return [turn["value"] for record in records for turn in record["conversations"]]


def ids(said, vocab, folder):
    """How many of some texts get other ids there than here."""
    tokenizer = Tokenizer.learn(said, vocab)
    tokenizer.save(folder)
    save_model(Llama(Config(**{**SHAPE, "vocab": tokenizer.vocab})), folder)
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
        for whose, gap in zip(("ours opened by peft", "peft's opened here"), adapters(Path(folder) / "lora")):
            failed |= gap > 1e-5
            print(f"adapters: logits differ by {gap:.1e}, {whose}")
        gap, wrong = meta(Path(folder) / "meta")
        failed |= gap > 1e-4 or wrong < 1e-2
        print(f"Meta's layout: logits differ by {gap:.1e}; were its rows not in Meta's order, by {wrong:.1e}")
        other = ids(said + NASTY, 2000, Path(folder) / "tokenizer")
        failed |= bool(other)
        print(f"{len(said) + len(NASTY):,} texts: {len(other)} get other ids from transformers"
              + "".join(f"\n    {text!r}" for text in other[:5]))
        tokenizer = Tokenizer.load(Path(folder) / "tokenizer")
        package = SentencePieceProcessor(model_file=str(Path(folder) / "tokenizer" / "tokenizer.model"))
        other = [text for text in NASTY + LEADING if tokenizer.encode(text) != package.encode(text)
                 or tokenizer.decode(tokenizer.encode(text)) != text]
        failed |= bool(other)
        print(f"{len(NASTY + LEADING)} nasty texts: {len(other)} get other ids from sentencepiece, or do not come back")
        wrong, n = templates(Path(folder) / "tokenizer", tokenizer)
        failed |= wrong > 0
        print(f"{n} dialogues: {wrong} get other ids by the chat template there")
    sys.exit("parity is broken" if failed else 0)


if __name__ == "__main__":
    main()
