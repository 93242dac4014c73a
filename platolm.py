"""
PlatoLM: one dialogue, two ways to learn from it.

A dialogue is a list of turns, said by a human and by gpt in alternation. Fine-tune a language
model on what the *human* said and you get Socratic, who asks; fine-tune it on what *gpt* said
and you get PlatoLM, who answers. The ids are the same; only the mask differs.

Here: the record, the template, the tokenizer, `encode`, `shift`, `prompt`, and the mask
microscope (`python platolm.py show data/example.jsonl`). Not here: anything with tensors.
Read next: model.py, then train.py, simulate.py, evaluate.py.
"""

import argparse
import json
import os
import shutil
import sys
from itertools import groupby
from pathlib import Path

from data.program import UserError, read_jsonl, read_json, run

# what stands around the words: the models read it, and (but for learn="all") never learn it.
# Sentencepiece puts a space before each text that it encodes. The first label is encoded together
# with this line, so its space has to be written here
SYSTEM = "A curious human talks with a helpful assistant.\n\n "
LABEL = {"human": "Human: ", "gpt": "Assistant: "}

# a target that the loss skips (the number torch's cross entropy ignores)
IGNORE = -100


def encode(conversation, tokenizer, learn, intent="", compat=False):
    """
    A list of turns as token ids, and a mask that is True where the loss counts.

    learn="human"  gives Socratic, who asks: the flip that PlatoLM is about
    learn="gpt"    gives the assistant, who answers
    learn="all"    gives a plain language model of the whole text

    `intent` is a line about who the human is or wants; nobody but the human gets to read it.
    compat: the <s> of a learnt turn counts, too, as in the authors' code.
    """
    ids, mask, everything = [], [], learn == "all"

    def add(tokens, counts):
        ids.extend(tokens)
        mask.extend([counts] * len(tokens))

    add([tokenizer.bos], False)
    before = tokenizer.system
    if intent and learn == "human":
        before += f"{intent}\n\n "
    for turn in conversation:
        learnt = everything or turn["from"] == learn
        # as in the paper, every turn stands between a <s> and a </s> of its own
        add(tokenizer.encode(before + LABEL[turn["from"]]), everything)
        add([tokenizer.bos], everything or compat and learnt)
        # the </s> counts as well: it is how a model learns to stop
        add(tokenizer.encode(turn["value"]) + [tokenizer.eos], learnt)
        before = ""
    return ids, mask


def shift(ids, mask):
    """
    Inputs and targets: each token predicts the next, and the mask belongs to the predicted one.

    shift([5, 6, 7], [False, False, True])  ->  [5, 6], [IGNORE, 7]
    """
    targets = [token if counts else IGNORE for token, counts in zip(ids[1:], mask[1:])]
    return ids[:-1], targets


def prompt(conversation, tokenizer, speaker, intent=""):
    """The ids after which `speaker` ("human" or "gpt") begins to write the next turn."""
    ids, _ = encode([*conversation, {"from": speaker, "value": ""}], tokenizer, speaker, intent)
    # all but the </s> of the empty turn
    return ids[:-1]


# ------------------------------------------------------------------------------------------------
# the record: {"id", "conversations": [{"from": "human" | "gpt", "value": text}, ...], "end"?},
# one a line; plain text for a base model is {"id", "text"}

END_REASONS = {
    "left": "the human had enough",
    "cut": "the file holds no more of it",
    "turn_limit": "as many questions as allowed",
    "token_limit": "a text longer than allowed; it is not kept",
    "context_full": "no room for another question",
    "repeats": "the human asked the same again",
    "role_leak": "the human began to write the other's part",
    "content_filter": "the assistant's provider refused",
    "budget": "the money was spent",
    "error": "the assistant said nothing",
}


class DialogueEnd(Exception):
    """Raised by either side to end a dialogue; its text is one of ENDS."""


class Reply(str):
    """A text that knows how it came about: said.meta is {"model", "finish", "usage", ...}."""

    def __new__(cls, text, how):
        said = super().__new__(cls, text)
        said.meta = how
        return said


def turns(record):
    """
    The turns to learn from. A human who left did so by saying nothing: that is a turn, too.

    The silence is never on file; the record says {"end": "left"} instead.
    """
    said = record["conversations"]
    left = record.get("end") == "left" and said[-1]["from"] == "gpt"
    return said + [{"from": "human", "value": ""}] if left else said


def blanked(conversation):
    """What a blind user sees of a dialogue: that gpt spoke, and nothing of what it said."""
    return [turn if turn["from"] == "human" else turn | {"value": ""} for turn in conversation]


def to_messages(conversation):
    """Turns in OpenAI's words: [{"role": "user" | "assistant", "content": text}, ...]."""
    role = {"human": "user", "gpt": "assistant"}
    return [{"role": role[turn["from"]], "content": turn["value"]} for turn in conversation]


def record_error(record):
    """What is wrong with a record, in a few words; None if nothing is."""
    if "text" in record and "conversations" not in record:
        text = record["text"]
        return None if isinstance(text, str) and text else "an empty text"
    said = record.get("conversations")
    if not isinstance(said, list) or not said:
        return 'an empty dialogue (no turns in "conversations")'
    for number, turn in enumerate(said, 1):
        if not isinstance(turn, dict) or turn.get("from") not in ("human", "gpt"):
            who = turn.get("from") if isinstance(turn, dict) else turn
            return f'turn {number} is not from "human" or "gpt" but {str(who)[:40]!r}'
        if not isinstance(turn.get("value"), str) or not turn["value"].strip():
            return f"turn {number} says nothing"
        if number > 1 and turn["from"] == said[number - 2]["from"]:
            return f'roles do not alternate: turns {number - 1} and {number} are "{turn["from"]}"'
    if "end" in record and record["end"] not in list(END_REASONS):
        return f'an unknown end {record["end"]!r}; known are {", ".join(END_REASONS)}'
    return None


def read_records(path):
    """The records of a JSONL file, one at a time; a bad line is a Problem with its number."""
    return read_jsonl(path, record_error)


# ------------------------------------------------------------------------------------------------
# the tokenizer: sentencepiece, as LLaMA uses it


class Tokenizer:
    """
    Text to ids and back, losing nothing: decode(encode(text)) == text.

    `model` is the bytes of a sentencepiece model. Text that looks like a special token ("</s>")
    stays text; the ids of `bos` and `eos` are only ever put in by `encode` above. `system` is what
    a dialogue begins with, and `speaker` whose turns a model has learnt ("" for no one's).
    """

    def __init__(self, model, system=SYSTEM, speaker=""):
        from sentencepiece import SentencePieceProcessor
        self.model, self.system, self.speaker = model, system, speaker
        self.pieces = SentencePieceProcessor(model_proto=model)
        self.bos, self.eos = self.pieces.bos_id(), self.pieces.eos_id()
        self.vocab = self.pieces.get_piece_size()

    def encode(self, text):
        return self.pieces.encode(text)

    def decode(self, ids):
        # a model may have spare ids that stand for no piece
        return self.pieces.decode([token for token in ids if token < self.vocab])

    @classmethod
    def learn(cls, texts, vocab):
        """Byte-pair encoding learnt from a list of texts, with at most `vocab` pieces."""
        import io
        from sentencepiece import SentencePieceTrainer
        model = io.BytesIO()
        # the template stands in every dialogue: shown often, it is learnt as few pieces
        template = [SYSTEM.rstrip(" "), *LABEL.values()] * (1 + len(texts) // 20)
        how = dict(
            vocab_size=vocab,
            # as LLaMA: bytes where no piece fits, digits one by one
            model_type="bpe", byte_fallback=True, split_digits=True,
            # nothing is tidied up, so that decoding gives back what was said
            normalization_rule_name="identity", remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True, max_sentence_length=1 << 20,
            unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
            hard_vocab_limit=False, minloglevel=2)
        try:
            SentencePieceTrainer.train(
                sentence_iterator=iter(template + texts), model_writer=model, **how)
        except RuntimeError as error:
            raise UserError(f"no tokenizer of {vocab} pieces can be learnt ({error})") from None
        return cls(model.getvalue())

    @classmethod
    def load(cls, directory):
        """The tokenizer of a checkpoint directory, and what its dialogues begin with."""
        page = Path(directory) / "tokenizer_config.json"
        known = read_json(page) if page.exists() else {}
        own = {name: known[name] for name in ("system", "speaker")
               if isinstance(known.get(name), str)}
        try:
            return cls((Path(directory) / "tokenizer.model").read_bytes(), **own)
        except OSError as error:
            raise UserError(f"{directory}: no usable tokenizer.model ({error.strerror})") from None
        except RuntimeError:
            raise UserError(f"{directory}/tokenizer.model is not a sentencepiece model") from None

    def save(self, directory):
        """Write tokenizer.model, and the tokenizer_config.json that others' programs need."""
        page = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True,
                "add_eos_token": False, "clean_up_tokenization_spaces": False,
                "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                "system": self.system, "speaker": self.speaker}
        if self.speaker:
            page["chat_template"] = chat_template(self.system, self.speaker)
        Path(directory).mkdir(parents=True, exist_ok=True)
        (Path(directory) / "tokenizer.model").write_bytes(self.model)
        (Path(directory) / "tokenizer_config.json").write_text(json.dumps(page, indent=2) + "\n")


def chat_template(system, speaker):
    """
    The template of `encode` in Jinja, as transformers, vLLM and llama.cpp read it; it always ends
    by opening a turn of `speaker`. What `speaker` said is marked as what is to be learnt.
    """
    opened = {who: f"{LABEL[who]}<s>" for who in LABEL}
    said = {who: "{{ message['content'] }}</s>" for who in LABEL}
    said[speaker] = "{% generation %}" + said[speaker] + "{% endgeneration %}"
    # our only system message is the line about the human
    return ("{{ bos_token }}{{ " + json.dumps(system, ensure_ascii=False) + " }}"
            "{% for message in messages %}"
            "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n ' }}"
            "{% elif message['role'] == 'user' %}" + opened["human"] + said["human"] +
            "{% else %}" + opened["gpt"] + said["gpt"] +
            "{% endif %}{% endfor %}" + opened[speaker])


# ------------------------------------------------------------------------------------------------
# what every program needs


# ------------------------------------------------------------------------------------------------
# the mask microscope: python platolm.py show FILE


def piece(token, tokenizer):
    """One token as it reads in a line of text."""
    text = tokenizer.pieces.id_to_piece(token)
    return text.replace("▁", " ").replace("\n", "⏎").replace("<0x0A>", "⏎")


def lines_of(pieces, width):
    """Where to break a line of pieces: (start, end) pairs; after </s>, ⏎, or `width` characters."""
    breaks, used = [0], 0
    for i, text in enumerate(pieces):
        over = i and (pieces[i - 1].endswith(("</s>", "⏎")) or used + len(text) > width)
        if over and not (text == "⏎" == pieces[i - 1]):
            breaks.append(i)
            used = 0
        used += len(text)
    return zip(breaks, breaks[1:] + [len(pieces)])


def paint(pieces, mask, width, colour):
    """A line with what is learnt in green, or in brackets without colour; padded to `width`."""
    line, room = "", width
    for learnt, pairs in groupby(zip(pieces, mask), key=lambda pair: pair[1]):
        text = "".join(text for text, _ in pairs)
        if colour:
            line += f"\033[30;42m{text}\033[0m" if learnt else f"\033[2m{text}\033[0m"
        else:
            text = f"[{text}]" if learnt else text
            line += text
        room -= len(text)
    return line + " " * room


def table(conversation, tokenizer):
    """Per turn: who said it, how many tokens it has, and how many each model learns."""
    lines = [f"{'turn':>4}  {'said by':<8}{'tokens':>7}{'human learns':>14}{'gpt learns':>12}"]
    for number, turn in enumerate(conversation, 1):
        n = len(tokenizer.encode(turn["value"])) + 1
        learns = {role: n * (role == turn["from"]) for role in LABEL}
        silence = "" if turn["value"] else "   (leaves by saying nothing)"
        lines.append(f"{number:>4}  {turn['from']:<8}{n:>7}{learns['human']:>14}"
                     f"{learns['gpt']:>12}{silence}")
    return lines


def show(record, tokenizer, width, colour, ids=False):
    """Print a dialogue twice, side by side: what Socratic learns, and what the assistant learns."""
    conversation = turns(record)
    tokens, human = encode(conversation, tokenizer, learn="human")
    tokens, gpt = encode(conversation, tokenizer, learn="gpt")
    pieces = [piece(token, tokenizer) for token in tokens]
    print(f"{'human learnt: Socratic, who asks':<{width}}  gpt learnt: PlatoLM, who answers")
    # a line holds two learnt stretches at most, so four characters are kept for brackets
    for a, b in lines_of(pieces, width - 4):
        both = [paint(pieces[a:b], mask[a:b], width, colour) for mask in (human, gpt)]
        print("  ".join(both).rstrip())
    print("\n" + "\n".join(table(conversation, tokenizer)))
    if ids:
        for place, (token, h, g) in enumerate(zip(tokens, human, gpt)):
            who = "human" if h else "gpt" if g else "-"
            print(f"{place:>5}{token:>7}  {who:<6} {pieces[place]!r}")


def main():
    parser = argparse.ArgumentParser(description="Look at a dialogue as the two models see it.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("show", help=show.__doc__)
    command.add_argument("file", help="dialogues, one JSON object a line")
    command.add_argument("--number", type=int, default=1, help="which of them (default: the first)")
    command.add_argument("--tokenizer", metavar="DIR", help="a checkpoint directory; without it, "
                         "a small tokenizer is learnt from the file itself")
    command.add_argument("--ids", action="store_true", help="list every token with its id, too")
    args = parser.parse_args()

    records = [r for r in read_records(args.file) if "conversations" in r]
    if not 1 <= args.number <= len(records):
        raise UserError(f"{args.file} holds {len(records)} dialogues, so there is none to show as "
                      f"number {args.number}")
    if args.tokenizer:
        tokenizer = Tokenizer.load(args.tokenizer)
    else:
        tokenizer = Tokenizer.learn([t["value"] for r in records for t in r["conversations"]], 512)
    width = max(40, (shutil.get_terminal_size((120, 40)).columns - 2) // 2)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    show(records[args.number - 1], tokenizer, width, colour, args.ids)


if __name__ == "__main__":
    run(main)
