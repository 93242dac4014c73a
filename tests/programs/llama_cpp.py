"""
Compare a checkpoint in llama.cpp with ours: logits and tokens, after llama.cpp's own converter.

    python -m tests.programs.llama_cpp CHECKPOINT SOURCES held-out.jsonl

`make llama-cpp` runs it, in an environment of its own. SOURCES is the folder of llama.cpp's source; weights and
cache are float32. Also compares our tokenizer on LLaMA's vocabulary with the ids that llama.cpp publishes.
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from data.checkpoint import load_model
from platolm import Tokenizer, prompt, to_messages, read_records

# the largest difference of logits that passes (float32 sums in another order come to about 1e-5)
TOLERANCE = 1e-2


def convert(checkpoint, sources, out):
    """Write the checkpoint as a GGUF file with llama.cpp's converter."""
    done = subprocess.run([sys.executable, sources / "convert_hf_to_gguf.py", checkpoint,
                           "--outtype", "f32", "--outfile", str(out)],
                          env=os.environ | {"PYTHONPATH": str(sources / "gguf-py")},
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the converter failed:\n{done.stderr[-2000:]}")


def render(template, messages):
    """Fill in a chat template; transformers' own tags for what is learnt are left out."""
    from jinja2 import Environment
    for tag in ("{% generation %}", "{% endgeneration %}"):
        template = template.replace(tag, "")
    return Environment().from_string(template).render(messages=messages, bos_token="<s>")


def compare(llama, model, tokenizer, record):
    """Compare one dialogue: (largest difference of logits, whether its tokens are equal)."""
    conversation = record["conversations"][:4]
    ids = prompt(conversation, tokenizer, tokenizer.speaker)
    text = render(llama.metadata["tokenizer.chat_template"], to_messages(conversation))
    same = llama.tokenize(text.encode(), add_bos=False, special=True) == ids
    llama.reset()
    llama.eval(ids)
    with torch.inference_mode():
        ours = model(torch.tensor([ids]))[0].numpy()
    return float(np.abs(llama.scores[:len(ids)] - ours).max()), same


def llama_tokenizer(sources):
    """Rebuild LLaMA's tokenizer from the vocabulary in llama.cpp's sources."""
    sys.path.insert(0, str(sources / "gguf-py"))
    from gguf import GGUFReader
    from sentencepiece import sentencepiece_model_pb2 as proto
    fields = GGUFReader(sources / "models" / "ggml-vocab-llama-spm.gguf").fields
    tokens, scores, types = (fields[f"tokenizer.ggml.{name}"].contents()
                             for name in ("tokens", "scores", "token_type"))
    model = proto.ModelProto()
    for token, score, kind in zip(tokens, scores, types):
        model.pieces.add(piece=token, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    return Tokenizer(model.SerializeToString())


def differs_from_published(sources):
    """Tell whether our ids of llama.cpp's test texts differ from those that it publishes."""
    vocabulary = sources / "models" / "ggml-vocab-llama-spm.gguf"
    tokenizer = llama_tokenizer(sources)
    texts = Path(f"{vocabulary}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    published = [list(map(int, row.split())) for row in Path(f"{vocabulary}.out").read_text().splitlines()]
    wrong = [text for text, ids in zip(texts, published) if tokenizer.encode(text) != ids]
    lost = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) != text]
    print(f"LLaMA's vocabulary, {tokenizer.vocab:,} pieces, <s> {tokenizer.bos}, </s> "
          f"{tokenizer.eos}: {len(texts)} texts, {len(wrong)} with other ids than published, "
          f"{len(lost)} that do not come back")
    return bool(wrong or lost or len(texts) != len(published))


def main():
    """Convert a checkpoint, open it in llama.cpp, and compare."""
    from llama_cpp import Llama as LlamaCpp
    checkpoint = sys.argv[1]
    sources = Path(sys.argv[2])
    records = list(islice(read_records(sys.argv[3]), 20))
    failed = differs_from_published(sources)
    model = load_model(checkpoint)
    tokenizer = Tokenizer.load(checkpoint)
    if not tokenizer.speaker:
        sys.exit(f"{checkpoint} has no chat template: it learnt no one's turns (or was trained "
                 "before checkpoints had one)")
    with tempfile.TemporaryDirectory() as folder:
        convert(checkpoint, sources, Path(folder) / "model.gguf")
        # type 0 is float32: by default the cache is rounded to 16 bits
        llama = LlamaCpp(f"{folder}/model.gguf", n_ctx=model.config.context, logits_all=True,
                         type_k=0, type_v=0, verbose=False)
        results = [compare(llama, model, tokenizer, record) for record in records]
        reply = llama.create_chat_completion(to_messages(records[0]["conversations"][:4]),
                                             temperature=0, max_tokens=32)
    difference = max(difference for difference, _ in results)
    same = sum(same for _, same in results)
    print(f"{len(results)} dialogues: logits differ by {difference:.1e} at most; of {same} the chat "
          "template gives the same tokens")
    print("its next turn there:", json.dumps(reply["choices"][0]["message"]["content"]))
    failed = failed or difference > TOLERANCE or same < len(results)
    sys.exit("llama.cpp and ours differ" if failed else 0)


if __name__ == "__main__":
    main()
