"""
Checkpoints of other formats: Meta's, old pickles, PEFT's adapters; and the chat template. Tests
data/formats/convert.py and adapter.py.
"""

import json
import os
import pickle

import pytest
import torch

import model as m
from data.checkpoint import load_model, read_safetensors, save_model, write_safetensors
from data.formats import convert as c
from model import add_lora, merge_lora
from data.program import UserError
from platolm import Tokenizer, prompt, to_messages, turns

close = torch.testing.assert_close
IDS = torch.arange(40).view(2, 20)


@pytest.fixture
def saved(make_model, tokenizer, tmp_path):
    """A model, and its checkpoint directory."""
    model = make_model(tied=False).eval()
    save_model(model, tmp_path / "ours")
    tokenizer.save(tmp_path / "ours")
    return model, tmp_path / "ours"


@pytest.fixture
def command(run_command):
    """command(*words) runs data.formats.convert on a command line."""
    return lambda *words: run_command(c.main, *words)


# ------------------------------------------------------------------------------------------------
# Meta


def neighbours(x, rope):
    """Rotation as in Meta's own code: a pair is a complex number, its parts side by side."""
    cos, sin = rope
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.complex(cos, sin)
    return torch.view_as_real(turned).flatten(-2)


META_NAMES = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm", "embed_tokens": "tok_embeddings", "lm_head": "output"}


def write_meta(model, directory, shards=1):
    """The very numbers of a model under Meta's names, divided as Meta divides them."""
    parts = [{} for _ in range(shards)]
    for name, tensor in model.state_dict().items():
        for ours, theirs in META_NAMES.items():
            name = name.replace(ours, theirs)
        side = 1 if any(word in name for word in ("wo.", "w2.", "tok_emb")) else 0
        for part, piece in zip(parts, [tensor] * shards if "norm" in name else tensor.chunk(shards, side)):
            part[name] = piece.clone()
    directory.mkdir()
    config = model.config
    (directory / "params.json").write_text(json.dumps({
        "dim": config.dim, "n_layers": config.layers, "n_heads": config.heads, "n_kv_heads": config.kv_heads,
        "norm_eps": config.eps, "vocab_size": -1, "multiple_of": 16}))
    for number, part in enumerate(parts):
        torch.save(part | {"rope.freqs": torch.ones(4)}, directory / f"consolidated.{number:02d}.pth")


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_metas_files_give_metas_logits(make_model, tokenizer, tmp_path, monkeypatch, command, shards, kv_heads):
    """Ours, converted, against the same numbers computed with Meta's own kind of rotation."""
    # Meta's files name no theta where it is 10,000
    model = make_model(tied=False, kv_heads=kv_heads, theta=10000.0).eval()
    write_meta(model, tmp_path / "7B", shards)
    tokenizer.save(tmp_path)
    done = command(tmp_path / "7B", tmp_path / "hf")
    assert done.returncode == 0 and "2,048 tokens of context" in done.stdout, done.stderr
    ours = load_model(tmp_path / "hf")(IDS)
    with monkeypatch.context() as patched:
        patched.setattr(m, "rotate", neighbours)
        theirs = model(IDS)
    close(ours, theirs)
    # without the permutation it is another model
    assert (model(IDS) - theirs).abs().max() > 0.01


def test_the_permutation_by_hand():
    """Two heads of width 4: pairs (0, 1) and (2, 3) become (0, 2) and (1, 3)."""
    rows = torch.arange(8.0)[:, None].expand(8, 3).contiguous()
    assert c.half_split(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("change, error", [
    ({"use_scaled_rope": True}, "use_scaled_rope, which is not"), ({"dim": None}, "hidden_size is missing"),
    ({"n_layers": 3}, "lack layers.2"), ({"n_heads": 3}, "3 heads"),
])
def test_metas_params_are_checked(saved, tmp_path, change, error):
    model, _ = saved
    write_meta(model, tmp_path / "7B")
    config = json.loads((tmp_path / "7B" / "params.json").read_text())
    (tmp_path / "7B" / "params.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=error):
        c.load_any(tmp_path / "7B")


# ------------------------------------------------------------------------------------------------
# old pickles


@pytest.mark.parametrize("shards", [1, 3])
def test_old_bins_are_read(saved, tmp_path, command, shards):
    model, ours = saved
    tensors = {name if name.startswith("lm_head") else f"model.{name}": tensor.half()
               for name, tensor in model.state_dict().items()}
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    (ours / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {f"pytorch_model-{n + 1:05d}-of-{shards:05d}.bin": names[n::shards] for n in range(shards)}
    for file, part in parts.items():
        torch.save({name: tensors[name] for name in part}, ours / file)
    (ours / "pytorch_model.bin.index.json").write_text(json.dumps(
        {"weight_map": {name: file for file, part in parts.items() for name in part}}))
    done = command(ours, tmp_path / "new")
    assert done.returncode == 0 and "float16" in done.stdout, done.stderr
    assert json.loads((tmp_path / "new" / "config.json").read_text())["torch_dtype"] == "float16"
    close(dict(load_model(tmp_path / "new").state_dict()), dict(model.half().state_dict()), rtol=0, atol=0)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("pickled", [pickle.dumps, None])
def test_no_pickle_is_run(saved, tmp_path, command, pickled):
    _, ours = saved
    (ours / "model.safetensors").unlink()
    bad, trap = ours / "pytorch_model.bin", tmp_path / "it ran"
    bad.write_bytes(pickled(Evil(trap))) if pickled else torch.save({"model.norm.weight": Evil(trap)}, bad)
    done = command(ours, tmp_path / "new")
    assert done.returncode == 1 and "is not opened" in done.stderr and "Traceback" not in done.stderr
    assert not trap.exists() and not (tmp_path / "new").exists()
    for rubbish in (b"", b"not a pickle", bad.read_bytes()[:20]):
        bad.write_bytes(rubbish)
        with pytest.raises(UserError, match="is not opened"):
            c.load_any(ours)
    torch.save({"model.norm.weight": [1]}, bad)
    with pytest.raises(UserError, match="something else than tensors"):
        c.load_any(ours)


@pytest.mark.parametrize("made, error", [
    ({}, "is no checkpoint that is known here"), ({"config.json": "{}"}, "not a 'llama'"),
    ({"config.json": '{"model_type": "llama", "rope_scaling": {"type": "dynamic"}}'}, "rope scaling"),
    ({"config.json": '{"model_type": "llama", "rope_parameters": {"rope_type": "llama3"}}'}, "rope scaling"),
    ({"config.json": '{"model_type": "llama", "rope_scaling": 7}'}, "makes no sense"),
    ({"config.json": '{"model_type": "llama", "rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}'},
     "several rope_theta"),
    ({"config.json": '{"model_type": "llama", "attention_bias": true}'}, "attention_bias"),
    ({"config.json": '{"model_type": "llama", "mlp_bias": true}'}, "mlp_bias"),
    ({"config.json": '{"model_type": "llama", "hidden_act": "gelu"}'}, "other than silu"),
    ({"config.json": '{"model_type": "llama", "quantization_config": {}}'}, "a quantised model"),
    ({"config.json": '{"model_type": "mistral"}'}, "'mistral'"), ({"params.json": "{}"}, "no consolidated.00.pth"),
    ({"adapter_config.json": '{"peft_type": "LORA", "r": 8, "lora_alpha": 16}'}, "say where"),
])
def test_what_is_not_supported_is_named(tmp_path, made, error):
    (tmp_path / "in").mkdir()
    for name, text in made.items():
        (tmp_path / "in" / name).write_text(text)
    with pytest.raises(UserError, match=error):
        c.load_any(tmp_path / "in")


def test_what_is_not_read_as_a_base_is_named(saved, tmp_path):
    """A file of another format, with the converter that reads it; a type of numbers; too many pieces."""
    _, ours = saved
    file = ours / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"dtype": "F32", "shape": [32]', b'"dtype": "F8_E4M3", "shape": [32]', 1))
    size = len(file.read_bytes()) - len(data)
    file.write_bytes((int.from_bytes(data[:8], "little") + size).to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(UserError, match="is stored as 'F8_E4M3', which is not supported"):
        load_model(ours)
    file.rename(ours / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"holds pytorch_model.bin.* data.formats.convert"):
        load_model(ours)
    for name in ("params.json", "adapter_config.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}")
        with pytest.raises(UserError, match=f"holds {name}.* data.formats.convert"):
            load_model(tmp_path / name)


def test_as_a_command_it_refuses_in_one_sentence(saved, tmp_path, command):
    _, ours = saved
    for words, error in [((ours, ours), "write somewhere else"), ((tmp_path / "x.gguf", ours), "is no directory"),
                        ((ours, tmp_path / "p", "--to", "peft"), "was not trained with train.py --lora")]:
        done = command(*words)
        assert done.returncode == 1 and error in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "adapter_config.json").write_text("{}")
    assert "another kind of checkpoint" in command(ours, tmp_path / "mixed").stderr
    (ours / "tokenizer.model").unlink()
    assert "no usable tokenizer.model" in command(ours, tmp_path / "new").stderr


def test_a_tokenizer_that_is_too_large_is_of_another_model(make_model, tokenizer, tmp_path, command):
    save_model(make_model(vocab=tokenizer.vocab - 1), tmp_path / "small")
    tokenizer.save(tmp_path / "small")
    assert "are not of one checkpoint" in command(tmp_path / "small", tmp_path / "new").stderr


# ------------------------------------------------------------------------------------------------
# adapters


def trained_lora(make_model, names=("q_proj", "down_proj")):
    """A model with random LoRA matrices, not merged."""
    model = make_model(tied=False)
    add_lora(model, names, 4, 10)
    with torch.no_grad():
        for linear in model.modules():
            if isinstance(linear, m.LoRALinear):
                linear.B.normal_(std=0.1)
    return model


def test_an_adapter_goes_out_and_comes_back(saved, make_model, tokenizer, tmp_path, command):
    _, base = saved
    model = trained_lora(make_model)
    c.write_adapter(model, tmp_path / "adapter", base)
    tokenizer.save(tmp_path / "adapter")
    want = merge_lora(model)(IDS)
    assert command(tmp_path / "adapter", tmp_path / "merged").returncode == 0
    close(load_model(tmp_path / "merged")(IDS), want)
    assert command(tmp_path / "adapter", tmp_path / "again", "--to", "peft").returncode == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_names_and_shapes_are_pefts(saved, make_model, tmp_path):
    _, base = saved
    c.write_adapter(trained_lora(make_model, ["k_proj", "lm_head"]), tmp_path / "a", base)
    tensors = read_safetensors(tmp_path / "a" / "adapter_model.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items() if "layers.1" not in name} == {
        "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight": (4, 32),
        "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight": (16, 4),
        "base_model.model.lm_head.lora_A.weight": (4, 32), "base_model.model.lm_head.lora_B.weight": (400, 4)}
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 10, ["k_proj", "lm_head"])


def test_rslora_is_weighted_by_the_root_of_the_rank(saved, make_model, tmp_path):
    _, base = saved
    c.write_adapter(trained_lora(make_model), tmp_path / "a", base)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True, "lora_alpha": 5}))
    model = load_model(base)
    c.read_adapter(model, tmp_path / "a")
    assert model.layers[0].self_attn.q_proj.scale == 5 / 2


@pytest.mark.parametrize("change, error", [
    ({"use_dora": True}, "use_dora"), ({"bias": "all"}, "biases"), ({"peft_type": "IA3"}, "other than LORA"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"rank_pattern": {"q": 1}}, "rank_pattern"),
    ({"init_lora_weights": "pissa"}, "'pissa' changes"), ({"init_lora_weights": "olora"}, "'olora' changes"),
    ({"init_lora_weights": "pissa_niter_16"}, "changes the base"), ({"alora_invocation_tokens": [7]}, "alora_inv"),
    ({"exclude_modules": ["k_proj"]}, "exclude_modules"), ({"a_key_of_tomorrow": 1}, "a_key_of_tomorrow, which is not"),
    ({"layers_pattern": "blocks"}, "layers_pattern"), ({"layers_to_transform": [0]}, "no part of its base"),
    ({"layers_to_transform": "0"}, "layers_to_transform"),
    ({"r": 0}, "does not tell r"), ({"lora_alpha": "16"}, "does not tell r"), ({"r": 8}, "of shape"),
])
def test_other_adapters_are_refused(saved, make_model, tmp_path, change, error):
    model, base = saved
    c.write_adapter(trained_lora(make_model), tmp_path / "a", base)
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=error):
        c.read_adapter(load_model(base), tmp_path / "a")


@pytest.mark.parametrize("layers", [[1], 1])
def test_an_adapter_of_some_layers_changes_only_those(saved, make_model, tmp_path, layers):
    _, base = saved
    c.write_adapter(trained_lora(make_model), tmp_path / "a", base)
    file = tmp_path / "a" / "adapter_model.safetensors"
    write_safetensors(file, {name: tensor.clone() for name, tensor in read_safetensors(file).items()
                             if "layers.1." in name})
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"layers_to_transform": layers}))
    model = load_model(base)
    c.read_adapter(model, tmp_path / "a")
    before, after = load_model(base).state_dict(), merge_lora(model).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"layers.1.self_attn.q_proj.weight", "layers.1.mlp.down_proj.weight"}


def test_an_adapter_with_holes_or_strange_parts_is_refused(saved, make_model, tmp_path):
    _, base = saved
    c.write_adapter(trained_lora(make_model), tmp_path / "a", base)
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in read_safetensors(file).items()}
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    write_safetensors(file, {n: t for n, t in tensors.items() if n != name})
    with pytest.raises(UserError, match=f"has no {name}"):
        c.read_adapter(load_model(base), tmp_path / "a")
    write_safetensors(file, tensors | {"base_model.model.model.layers.9.mlp.down_proj.lora_A.weight": tensors[name]})
    with pytest.raises(UserError, match="layers.9.*no part of its base"):
        c.read_adapter(load_model(base), tmp_path / "a")


# ------------------------------------------------------------------------------------------------
# the chat template, and what a checkpoint knows of its own


def rendered(directory, messages):
    from jinja2 import Environment
    template = json.loads((directory / "tokenizer_config.json").read_text())["chat_template"]
    marks = "{% generation %}", "{% endgeneration %}"
    opened = [part.split(marks[1])[0] for part in template.split(marks[0])[1:]]
    for mark in marks:
        template = template.replace(mark, "")
    return Environment().from_string(template).render(messages=messages, bos_token="<s>"), opened


def ids_of(text, tokenizer):
    """A rendered text as others tokenise it: <s> and </s> are ids, what is between them is text."""
    ids = []
    for part in text.replace("<s>", "\0<s>\0").replace("</s>", "\0</s>\0").split("\0"):
        ids += [{"<s>": 1, "</s>": 2}[part]] if part in ("<s>", "</s>") else tokenizer.encode(part)
    return ids


@pytest.mark.parametrize("speaker", ["human", "gpt"])
@pytest.mark.parametrize("system", ["A line.\n\n ", 'Of "two"\nlines: {{ 7 }} ünï.\n\n'])
def test_the_chat_template_gives_our_prompt_and_opens_the_speakers_turn(tokenizer, records, tmp_path, speaker, system):
    tokenizer = Tokenizer(tokenizer.model, system, speaker)
    tokenizer.save(tmp_path)
    for made in records:
        talk = made["conversations"] if speaker == "human" else made["conversations"][:-1]
        text, (learnt,) = rendered(tmp_path, to_messages(talk))
        assert ids_of(text, tokenizer) == prompt(talk, tokenizer, speaker)
        assert text.endswith({"human": "Human: <s>", "gpt": "Assistant: <s>"}[speaker])
        assert learnt == "{{ message['content'] }}</s>"
    text, _ = rendered(tmp_path, [{"role": "system", "content": "wants a boat"}])
    assert ids_of(text, tokenizer) == prompt([], tokenizer, "human", "wants a boat") or speaker == "gpt"


def test_a_checkpoint_remembers_how_its_dialogues_begin(tokenizer, records, tmp_path):
    Tokenizer(tokenizer.model, "Two of them talk.\n\n", "human").save(tmp_path)
    back = Tokenizer.load(tmp_path)
    assert (back.system, back.speaker) == ("Two of them talk.\n\n", "human")
    text = tokenizer.decode(prompt(turns(records[0]), back, "human"))
    assert text.startswith("Two of them talk.\n\nHuman: ")
    for rubbish in ('{"system": 5}', '{"speaker": null}'):
        (tmp_path / "tokenizer_config.json").write_text(rubbish)
        assert Tokenizer.load(tmp_path).system == tokenizer.system
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match="no JSON object"):
        Tokenizer.load(tmp_path)
