"""
Does llama.cpp open what we train? Its own converter, then its own logits and tokens beside ours.
And does our tokenizer read LLaMA's vocabulary, which comes with its sources, as published there?

    python -m tests.programs.llama_cpp CHECKPOINT SOURCES held-out.jsonl

Run by `make llama-cpp`, in an environment of its own. SOURCES is the folder of llama.cpp;
everything is kept in float32, the cache too.
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

# logits may differ by so much (float32 sums in another order come to about 1e-5)
NEAR = 1e-2


def converted(checkpoint, sources, out):
    """The checkpoint as a GGUF file, by llama.cpp's converter."""
    done = subprocess.run([sys.executable, sources / "convert_hf_to_gguf.py", checkpoint,
                           "--outtype", "f32", "--outfile", str(out)],
                          env=os.environ | {"PYTHONPATH": str(sources / "gguf-py")},
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the converter failed:\n{done.stderr[-2000:]}")


def rendered(template, messages):
    """A chat template filled in; what is learnt is marked by tags of transformers' own."""
    from jinja2 import Environment
    for tag in ("{% generation %}", "{% endgeneration %}"):
        template = template.replace(tag, "")
    return Environment().from_string(template).render(messages=messages, bos_token="<s>")


def compare(llama, model, tokenizer, record):
    """Of one dialogue: the largest difference of logits, and whether its tokens are ours."""
    asked = record["conversations"][:4]
    ids = prompt(asked, tokenizer, tokenizer.speaker)
    text = rendered(llama.metadata["tokenizer.chat_template"], to_messages(asked))
    same = llama.tokenize(text.encode(), add_bos=False, special=True) == ids
    llama.reset()
    llama.eval(ids)
    with torch.inference_mode():
        ours = model(torch.tensor([ids]))[0].numpy()
    return float(np.abs(llama.scores[:len(ids)] - ours).max()), same


def llamas_own(sources):
    """LLaMA's tokenizer, put together again from the vocabulary in llama.cpp's sources."""
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


def published(sources):
    """How many of llama.cpp's texts get other ids from us than those it publishes, of how many."""
    vocab, tokenizer = sources / "models" / "ggml-vocab-llama-spm.gguf", llamas_own(sources)
    said = Path(f"{vocab}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    ids = [list(map(int, row.split())) for row in Path(f"{vocab}.out").read_text().splitlines()]
    wrong = [text for text, known in zip(said, ids) if tokenizer.encode(text) != known]
    lost = [text for text in said if tokenizer.decode(tokenizer.encode(text)) != text]
    print(f"LLaMA's vocabulary, {tokenizer.vocab:,} pieces, <s> {tokenizer.bos}, </s> "
          f"{tokenizer.eos}: {len(said)} texts, {len(wrong)} with other ids than published, "
          f"{len(lost)} that do not come back")
    return wrong or lost or len(said) != len(ids)


def main():
    """Convert, open, compare."""
    from llama_cpp import Llama as Theirs
    checkpoint, sources, path = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    failed = published(sources)
    model, tokenizer = load_model(checkpoint), Tokenizer.load(checkpoint)
    if not tokenizer.speaker:
        sys.exit(f"{checkpoint} has no chat template: it learnt no one's turns (or was trained "
                 "before checkpoints had one)")
    records = list(islice(read_records(path), 20))
    with tempfile.TemporaryDirectory() as folder:
        converted(checkpoint, sources, Path(folder) / "model.gguf")
        # type 0 is float32: by default the cache is rounded to 16 bits
        llama = Theirs(f"{folder}/model.gguf", n_ctx=model.config.context, logits_all=True,
                       type_k=0, type_v=0, verbose=False)
        found = [compare(llama, model, tokenizer, record) for record in records]
        said = llama.create_chat_completion(to_messages(records[0]["conversations"][:4]),
                                            temperature=0, max_tokens=32)
    far, same = max(far for far, _ in found), sum(same for _, same in found)
    print(f"{len(found)} dialogues: logits differ by {far:.1e} at most; of {same} the chat "
          "template gives the same tokens")
    print("its next turn there:", json.dumps(said["choices"][0]["message"]["content"]))
    failed = failed or far > NEAR or same < len(found)
    sys.exit("llama.cpp does not see what we see" if failed else 0)


if __name__ == "__main__":
    main()
