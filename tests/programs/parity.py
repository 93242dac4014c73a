"""
Compare our LLaMA with the one of transformers, peft, sentencepiece and Meta: logits and token ids.

    python -m tests.programs.parity [dialogues.json | dialogues.jsonl]

`make parity` runs it, in an environment of its own. Random weights in float32; every shape both ways: our directory
opened there, and theirs opened here. Exits with 1 if anything differs.
"""

import io
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from data.checkpoint import load_model, save_model
from data.formats.adapter import write_adapter
from data.formats.convert import load_any
from data.program import UserError
from model import Config, Llama, LoRALinear, add_lora
from platolm import Tokenizer, prompt, to_messages
from tests.programs.bench_train import NAMES

SHAPE = {"vocab": 400, "dim": 64, "layers": 3, "heads": 4, "hidden": 112, "context": 128}
# variants of peft's adapters that are read here, and those that are refused
READ_VARIANTS = [{"lora_alpha": 12}, {"use_rslora": True}, {"init_lora_weights": "gaussian"},
                 {"init_lora_weights": "orthogonal"}, {"layers_to_transform": [0, 2]}, {"layers_to_transform": 1},
                 {"target_modules": ".*(v_proj|up_proj)", "lora_dropout": 0.5}]
REFUSED_VARIANTS = [{"init_lora_weights": "pissa"}, {"init_lora_weights": "pissa_niter_4"},
                    {"init_lora_weights": "olora"}, {"use_dora": True}, {"rank_pattern": {"q_proj": 2}},
                    {"alpha_pattern": {"q_proj": 2}}, {"bias": "all"}, {"lora_bias": True},
                    {"modules_to_save": ["lm_head"]}, {"exclude_modules": ["layers.1.self_attn.q_proj"]},
                    {"trainable_token_indices": [3]}, {"target_modules": ["q_proj", "lm_head"]},
                    {"target_modules": ".*layers.[01].*v_proj"}]
# texts that begin with white space: there transformers 5 leaves out the dummy prefix of every LLaMA
LEADING = [" leading", "   three", "\tand a tab", " \n", " 🦜"]
NASTY = ["", "two  spaces  ", "tab\tand\nnew\r\nline", "emoji 🦜, ümläut", "</s> is text", "日本語",
         "<s>Human: <unk>", "12.5", "\x01", "<0x0A>", "e\u0301", "trailing ", "\n\n"]


def difference(a, b):
    """Return the largest absolute difference between two tensors."""
    return (a - b).abs().max().item()


@torch.inference_mode()
def logits(kv_heads, tied, folder):
    """Return the largest differences of logits: (ours opened there, theirs opened here)."""
    ids = torch.randint(400, (2, 50))
    ours = Llama(Config(**SHAPE, kv_heads=kv_heads, tied=tied, theta=5000.0))
    for weight in ours.parameters():
        weight.normal_(std=0.1)
    save_model(ours, folder)
    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    there = difference(ours(ids), theirs(ids).logits)

    config = LlamaConfig(vocab_size=400, hidden_size=64, intermediate_size=112, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=kv_heads, tie_word_embeddings=tied,
                         initializer_range=0.1)
    theirs = LlamaForCausalLM(config).eval()
    theirs.save_pretrained(folder / "theirs", max_shard_size="100KB")
    return there, difference(load_model(folder / "theirs")(ids), theirs(ids).logits)


@torch.inference_mode()
def adapters(folder):
    """Yield names and largest differences of logits, in float64: our adapter in peft, and peft's here."""
    ids = torch.randint(400, (2, 50))
    base = Llama(Config(**SHAPE, kv_heads=2, tied=False))
    save_model(base, folder / "base")
    add_lora(base, NAMES, 8, 20)
    for part in base.modules():
        if isinstance(part, LoRALinear):
            part.B.normal_(std=0.05)
    write_adapter(base, folder / "ours", folder / "base")

    def load_base():
        return LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(load_base(), folder / "ours").eval()
    there = difference(base.double()(ids), theirs.double()(ids).logits)

    yield "ours opened by peft", there

    for variant in READ_VARIANTS:
        theirs = get_peft_model(load_base(), LoraConfig(**{"r": 4, "target_modules": NAMES} | variant)).eval()
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
        theirs.save_pretrained(folder / "theirs")
        # what peft itself opens again, not what it has in memory
        again = PeftModel.from_pretrained(load_base(), folder / "theirs").eval()
        merged = load_any(folder / "theirs", folder / "base")
        yield f"peft's {variant} opened here", difference(merged.double()(ids), again.double()(ids).logits)


def refused_adapters(folder):
    """Count the adapters of peft's with more than plain LoRA that are not refused here: (accepted, all)."""
    save_model(Llama(Config(**SHAPE, kv_heads=2, tied=False)), folder / "base")
    accepted = []
    for variant in REFUSED_VARIANTS:
        base = LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        config = LoraConfig(**{"r": 4, "target_modules": NAMES} | variant)
        get_peft_model(base, config).save_pretrained(folder / "theirs")
        try:
            load_any(folder / "theirs", folder / "base")
            accepted.append(variant)
        except UserError as error:
            print(f"    {variant}: {str(error).partition('theirs')[2]}")
    return accepted


@torch.inference_mode()
def meta(folder):
    """Yield the largest differences of logits to Meta's format: with its order of rows, and without."""
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
                # pair i of a head is rows i and i + 8 in transformers, 2 i and 2 i + 1 in Meta's format
                order = [16 * (row // 16) + row % 2 * 8 + row % 16 // 2 for row in range(len(tensor))]
                tensor = tensor[order]
            for theirs, metas in names.items():
                name = name.replace(theirs, metas)
            tensors[name.removeprefix("model.")] = tensor.clone()
        folder.mkdir(exist_ok=True)
        torch.save(tensors, folder / "consolidated.00.pth")
        (folder / "params.json").write_text(json.dumps(
            {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5}))
        yield difference(load_any(folder)(ids), model(ids).logits)


def template_differences(folder, tokenizer):
    """Count the dialogues whose ids by our chat template there differ from our prompt: (different, all)."""
    records = [json.loads(row) for row in Path("data/example.jsonl").read_text().splitlines()]
    different = 0
    for speaker in ("human", "gpt"):
        tokenizer.speaker = speaker
        tokenizer.save(folder)
        theirs = AutoTokenizer.from_pretrained(folder)
        for record in records:
            conversation = record["conversations"][:4 if speaker == "human" else 3]
            their_ids = theirs.apply_chat_template(to_messages(conversation), return_dict=False)
            different += prompt(conversation, tokenizer, speaker) != their_ids
    return different, 2 * len(records)


def other_ids(texts, folder):
    """List the texts that get other ids there from a tokenizer with other ids and names of <s> and </s>."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=600, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
        bos_id=0, eos_id=1, unk_id=2, bos_piece="[BEGIN]", eos_piece="[END]")
    tokenizer = Tokenizer(model.getvalue(), speaker="gpt")
    tokenizer.save(folder)
    save_model(Llama(Config(**{**SHAPE, "vocab": tokenizer.vocab})), folder, tokenizer)
    theirs = AutoTokenizer.from_pretrained(folder)
    config = LlamaForCausalLM.from_pretrained(folder).config
    same = [tokenizer.bos, tokenizer.eos]
    if [theirs.bos_token_id, theirs.eos_token_id] != same or [config.bos_token_id, config.eos_token_id] != same:
        return ["<s> and </s>"]
    different = [text for text in texts if theirs.encode(text) != [tokenizer.bos, *tokenizer.encode(text)]]
    return different + ["the chat template"] * template_differences(folder, tokenizer)[0]


def read_texts(path):
    """List the texts of all turns in a file of dialogues, a JSON array or JSONL."""
    text = Path(path).read_text(encoding="utf-8")
    records = json.loads(text) if text.startswith("[") else map(json.loads, text.splitlines())
    return [turn["value"] for record in records for turn in record["conversations"]]


def tokenizer_differences(texts, vocab, folder):
    """Train our tokenizer on texts, and list those that get other ids from transformers."""
    tokenizer = Tokenizer.learn(texts, vocab)
    tokenizer.save(folder)
    save_model(Llama(Config(**{**SHAPE, "vocab": tokenizer.vocab})), folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    different = []
    for text in texts:
        their_ids = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        if tokenizer.encode(text) != their_ids:
            different.append(text)
    return different


def main():
    """Make all comparisons, print a line each, and exit with 1 if one fails."""
    torch.manual_seed(0)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kv_heads, tied in itertools.product((1, 2, 4), (True, False)):
            there, here = logits(kv_heads, tied, folder / f"{kv_heads}{tied}")
            failed |= max(there, here) > 1e-4
            print(f"{kv_heads} of 4 heads have keys, {'tied' if tied else 'untied'}: logits differ by "
                  f"{there:.1e} opened there, {here:.1e} opened here")
        for name, gap in adapters(folder / "lora"):
            failed |= gap > 1e-5
            print(f"adapters: logits differ by {gap:.1e}, {name}")
        accepted = refused_adapters(folder / "refused")
        failed |= bool(accepted)
        print(f"adapters with more than plain LoRA: {len(REFUSED_VARIANTS)} tried, accepted here: {accepted or 'none'}")
        gap, unordered = meta(folder / "meta")
        failed |= gap > 1e-4 or unordered < 1e-2
        print(f"Meta's layout: logits differ by {gap:.1e}; were its rows not in Meta's order, by {unordered:.1e}")

        texts = read_texts(sys.argv[1])[:6000] if len(sys.argv) > 1 else read_texts("data/example.jsonl")
        different = tokenizer_differences(texts + NASTY, 2000, folder / "tokenizer")
        failed |= bool(different)
        print(f"{len(texts) + len(NASTY):,} texts: {len(different)} get other ids from transformers")
        for text in different[:5]:
            print(f"    {text!r}")
        tokenizer = Tokenizer.load(folder / "tokenizer")
        package = SentencePieceProcessor(model_file=str(folder / "tokenizer" / "tokenizer.model"))
        different = [text for text in NASTY + LEADING if tokenizer.encode(text) != package.encode(text)
                     or tokenizer.decode(tokenizer.encode(text)) != text]
        failed |= bool(different)
        print(f"{len(NASTY + LEADING)} nasty texts: {len(different)} get other ids from sentencepiece, or do not "
              "come back")
        different = other_ids(texts[:500], folder / "other")
        failed |= bool(different)
        print(f"a tokenizer with <s> 0 and </s> 1, other names: {len(different)} differences there {different[:3]}")
        wrong, number = template_differences(folder / "tokenizer", tokenizer)
        failed |= wrong > 0
        print(f"{number} dialogues: {wrong} get other ids by the chat template there")
    sys.exit("parity is broken" if failed else 0)


if __name__ == "__main__":
    main()
