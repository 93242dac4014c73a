"""
PlatoLM: one dialogue, two ways to learn from it.

A dialogue is a list of turns, written by a human and by gpt in alternation. Fine-tune a language
model on the *human* turns and you get Socratic, a user simulator; fine-tune it on the *gpt* turns
and you get PlatoLM, an assistant. The token ids are the same; only the mask differs.

This file holds the mask, the record, the tokenizer, and a command that prints both masks:

    python platolm.py show data/example.jsonl

Read next: model.py, then train.py, simulate.py, evaluate.py.
"""

import argparse
import json
import os
import shutil
import sys
from itertools import groupby
from pathlib import Path
from unicodedata import east_asian_width

from data.program import UserError, read_json, read_jsonl, run
from data.train_tokenizer import train_tokenizer

# The template around the turns: models read it and (but for learn="all") never learn it.
# Sentencepiece puts a space before each text that it encodes. The first label is encoded together
# with the system line, so its space has to be written here.
SYSTEM = "A curious human talks with a helpful assistant.\n\n "
LABEL = {"human": "Human: ", "gpt": "Assistant: "}

# a target that the loss skips (the number that torch's cross entropy ignores)
IGNORE = -100


# exercise 1: the mask that makes Socratic
def encode(conversation, tokenizer, learn, intent="", compat=False):
    """
    Encode turns {"from", "value"} as two lists: token ids, and a mask, True where the loss counts.

    learn="human"  trains Socratic, who asks: the reverse of the usual, and PlatoLM's idea
    learn="gpt"    trains the assistant, who answers
    learn="all"    trains a plain language model of the whole text but for the first <s>

    ids   : <s>  system line, LABEL  <s>  text  </s>  LABEL  <s>  text  </s> ...
    human :                               xxxx  xxxx
    gpt   :                                                       xxxx  xxxx
    all   :      xxxxxxxxxxxxxxxxxx  xxx  xxxx  xxxx  xxxxx  xxx  xxxx  xxxx

    <s> and </s> are the ids tokenizer.bos and .eos; tokenizer.encode(text) gives a text's ids. The
    system line (tokenizer.system) and the first label, of whoever speaks first, are encoded as one
    text. `intent` is a line about who the human is or what they want; only a model of the human
    (learn="human") reads it: it stands behind the system line, with two newlines and a space after.
    compat: the <s> of a learnt turn counts as well, as in the authors' code.
    A turn that is marked as not to be learnt (not is_target(turn)) is read; its text and </s> never
    count.
    """
    ids, mask = [], []
    everything = learn == "all"

    def add(tokens, counts):
        ids.extend(tokens)
        mask.extend([counts] * len(tokens))

    add([tokenizer.bos], False)
    before = tokenizer.system
    if intent and learn == "human":
        before += f"{intent}\n\n "
    for turn in conversation:
        learnt = is_target(turn) and (everything or turn["from"] == learn)
        # as in the paper, every turn stands between a <s> and a </s> of its own
        add(tokenizer.encode(before + LABEL[turn["from"]]), everything)
        add([tokenizer.bos], everything or (compat and learnt))
        # the </s> counts as well: it is how a model learns to stop
        add(tokenizer.encode(turn["value"]) + [tokenizer.eos], learnt)
        before = ""
    return ids, mask


# exercise 2: the shift
def shift(ids, mask):
    """
    Inputs and targets: each token predicts the next, and the mask belongs to the predicted one.

    Both are lists, one shorter than ids and mask; a target that does not count is IGNORE.
    shift([5, 6, 7], [False, False, True])  ->  [5, 6], [IGNORE, 7]
    """
    targets = [token if counts else IGNORE for token, counts in zip(ids[1:], mask[1:])]
    return ids[:-1], targets


def prompt(conversation, tokenizer, speaker, intent=""):
    """Return the ids after which `speaker` ("human" or "gpt") writes the next turn."""
    ids, _ = encode([*conversation, {"from": speaker, "value": ""}], tokenizer, speaker, intent)
    # without the </s> of the empty turn
    return ids[:-1]


# ------------------------------------------------------------------------------------------------
# the record: {"id", "conversations": [{"from": "human" | "gpt", "value": text}, ...], "end"?,
# "intent"?}, one a line; plain text for a base model is {"id", "text"}

# why a dialogue ended: values of a record's "end"
END_REASONS = {
    "left": "the human had enough",
    "cut": "the file holds no more of it",
    "turn_limit": "as many questions as allowed",
    "token_limit": "a text longer than allowed; it is not kept",
    "context_full": "no room for another question",
    "repeats": "the human repeated a question, or only thanked again",
    "role_leak": "the human began to write the other's part",
    "content_filter": "the assistant's provider refused",
    "refused": "a server refused for a reason of its own",
    "budget": "the money was spent",
    "error": "no answer came, or it took too long",
}


class DialogueEnd(Exception):
    """Raised by either side to end a dialogue; its text is one of END_REASONS."""


# keys by which the author of a file marks a turn as not to be learnt, with the value 0 or false
LOSS_FLAGS = ("weight", "loss", "train", "training", "trainable", "loss_mask")


def is_target(turn):
    """Whether a turn may be learnt; {"weight": 0} or another of LOSS_FLAGS makes it context."""
    values = [str(turn.get(flag, 1)).lower() for flag in LOSS_FLAGS]
    return not {"0", "0.0", "false"}.intersection(values)


def mark_turns(conversation, loss_mask):
    """Return the turns, marked where a list of a record's own says 0: one number for each turn."""
    if not isinstance(loss_mask, list) or len(loss_mask) != len(conversation):
        raise ValueError("its loss_mask does not have one number for each turn")
    return [turn if counts else turn | {"loss": False}
            for turn, counts in zip(conversation, loss_mask)]


def turns(record):
    """
    Return a record's turns to learn from. A human who left wrote an empty turn: it is added here.

    No file holds the empty turn; the record says {"end": "left"} instead.
    """
    conversation = record["conversations"]
    if "loss_mask" in record:
        conversation = mark_turns(conversation, record["loss_mask"])
    if record.get("end") == "left" and conversation[-1]["from"] == "gpt":
        return conversation + [{"from": "human", "value": ""}]
    return conversation


# exercise 10: a user who hears no answer
def blanked(conversation):
    """
    Return a new list of the turns with the "value" of every answer "": what a blind user reads.

    No turn is left out, and its other keys stay; the conversation itself does not change.
    """
    heard = []
    for turn in conversation:
        heard.append(turn if turn["from"] == "human" else turn | {"value": ""})
    return heard


def to_messages(conversation):
    """Return turns as OpenAI's messages: [{"role": "user" | "assistant", "content": text}, ...]."""
    role = {"human": "user", "gpt": "assistant"}
    return [{"role": role[turn["from"]], "content": turn["value"]} for turn in conversation]


def record_error(record):
    """Describe in a few words what is wrong with a record; None if nothing is."""
    if "text" in record and "conversations" not in record:
        text = record["text"]
        return None if isinstance(text, str) and text else "an empty text"
    conversation = record.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        return 'an empty dialogue (no turns in "conversations")'
    previous = None
    for number, turn in enumerate(conversation, 1):
        speaker = turn.get("from") if isinstance(turn, dict) else turn
        if not isinstance(turn, dict) or speaker not in ("human", "gpt"):
            return f'turn {number} is not from "human" or "gpt" but {str(speaker)[:40]!r}'
        if not isinstance(turn.get("value"), str) or not turn["value"].strip():
            return f"turn {number} says nothing"
        if speaker == previous:
            return f'roles do not alternate: turns {number - 1} and {number} are "{speaker}"'
        previous = speaker
    if "loss_mask" in record:
        try:
            mark_turns(conversation, record["loss_mask"])
        except ValueError as error:
            return str(error)
    # compared with a list: an "end" from outside may be of a type that no dict can look up
    if "end" in record and record["end"] not in list(END_REASONS):
        return f'an unknown end {record["end"]!r}; known are {", ".join(END_REASONS)}'
    return None


def read_records(path):
    """Yield the records of a JSONL file; a bad line is a UserError with its number."""
    return read_jsonl(path, record_error)


# ------------------------------------------------------------------------------------------------
# the tokenizer: sentencepiece, as LLaMA uses it


class Tokenizer:
    """
    Text to token ids and back: decode(encode(text)) == text.

    model: the bytes of a sentencepiece model. Text that looks like a special token ("</s>") stays
    text; only `encode` above writes the ids `bos` and `eos`.
    system: the line that dialogues begin with. speaker: whose turns the model of this checkpoint
    has learnt, "human" or "gpt"; "" for a base model.
    """

    def __init__(self, model, system=SYSTEM, speaker=""):
        from sentencepiece import SentencePieceProcessor
        self.model = model
        self.system = system
        self.speaker = speaker
        self.pieces = SentencePieceProcessor(model_proto=model)
        self.bos = self.pieces.bos_id()
        self.eos = self.pieces.eos_id()
        self.vocab = self.pieces.get_piece_size()

    def encode(self, text):
        """Return the ids of a text, without special tokens."""
        if "▁" not in text:
            return self.pieces.encode(text)
        # sentencepiece writes a space as ▁, and would read ▁ as a space. A character that is in
        # no text stands in for it, and then has its bytes exchanged
        stand_in = next(c for c in map(chr, range(0x10FFFF, 0, -1)) if c not in text)
        ids = self.pieces.encode(text.replace("▁", stand_in))
        old, new = self.byte_ids(stand_in), self.byte_ids("▁")
        i = 0
        while i < len(ids):
            if ids[i:i + len(old)] == old:
                ids[i:i + len(old)] = new
            i += 1
        return ids

    def byte_ids(self, character):
        """Return the ids of a character's bytes (of unknown pieces, in a model without bytes)."""
        return [self.pieces.piece_to_id(f"<0x{byte:02X}>") for byte in character.encode()]

    def decode(self, ids):
        """Return the text of ids, without those beyond the vocabulary (padded models have some)."""
        return self.pieces.decode([token for token in ids if token < self.vocab])

    @classmethod
    def learn(cls, texts, vocab):
        """Learn byte-pair encoding from a list of texts, with at most `vocab` pieces."""
        # every dialogue holds the template: seen often, it becomes few pieces
        template = [SYSTEM.rstrip(" "), *LABEL.values()] * (1 + len(texts) // 20)
        return cls(train_tokenizer(template, texts, vocab))

    @classmethod
    def load(cls, directory):
        """Load the tokenizer of a checkpoint directory, with its system line and speaker."""
        path = Path(directory) / "tokenizer_config.json"
        config = read_json(path) if path.exists() else {}
        ours = {name: config[name] for name in ("system", "speaker")
                if isinstance(config.get(name), str)}
        try:
            tokenizer = cls((Path(directory) / "tokenizer.model").read_bytes(), **ours)
            if min(tokenizer.bos, tokenizer.eos) < 0:
                raise UserError(f"{directory}: the tokenizer has no piece for the begin (bos) or "
                                "the end (eos) of a turn")
            return tokenizer
        except OSError as error:
            raise UserError(f"{directory}: no usable tokenizer.model ({error.strerror})") from None
        except RuntimeError:
            raise UserError(f"{directory}/tokenizer.model is not a sentencepiece model") from None

    def save(self, directory):
        """Write tokenizer.model, and the tokenizer_config.json that other programs need."""
        directory = Path(directory)
        bos, eos, unk = map(self.pieces.id_to_piece, (self.bos, self.eos, self.pieces.unk_id()))
        config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True,
                  "add_eos_token": False, "clean_up_tokenization_spaces": False,
                  "bos_token": bos, "eos_token": eos, "unk_token": unk,
                  "system": self.system, "speaker": self.speaker}
        if self.speaker:
            config["chat_template"] = chat_template(self.system, self.speaker, bos, eos)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.model").write_bytes(self.model)
        (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def chat_template(system, speaker, bos="<s>", eos="</s>"):
    """
    Return the template of `encode` in Jinja, as transformers, vLLM and llama.cpp read it; bos, eos:
    how the tokenizer names <s> and </s>.

    It always ends by opening a turn of `speaker`, whose turns carry generation markers: from these
    markers other trainers make the same mask.
    """
    opening = {role: f"{LABEL[role]}{bos}" for role in LABEL}
    content = {role: "{{ message['content'] }}" + eos for role in LABEL}
    content[speaker] = "{% generation %}" + content[speaker] + "{% endgeneration %}"
    # our only system message is the line about the human
    return ("{{ bos_token }}{{ " + json.dumps(system, ensure_ascii=False) + " }}"
            "{% for message in messages %}"
            "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n ' }}"
            "{% elif message['role'] == 'user' %}" + opening["human"] + content["human"] +
            "{% else %}" + opening["gpt"] + content["gpt"] +
            "{% endif %}{% endfor %}" + opening[speaker])


# ------------------------------------------------------------------------------------------------
# the command: python platolm.py show FILE


def token_text(token, tokenizer):
    """Return one token as it reads in a line of text, a newline as ⏎."""
    text = tokenizer.pieces.id_to_piece(token)
    return text.replace("▁", " ").replace("\n", "⏎").replace("<0x0A>", "⏎")


def token_texts(tokens, tokenizer):
    """
    Return tokens as they read in a line of text. Where a character is written in bytes, the last
    of them gives the character, the others give nothing.
    """
    texts, pending = [], b""
    for token in tokens:
        text = token_text(token, tokenizer)
        if tokenizer.pieces.is_byte(token) and text != "⏎":
            pending += bytes([int(text[3:5], 16)])
            try:
                character = pending.decode()
                pending = b""
                text = character if character.isprintable() else text
            except UnicodeDecodeError:
                text = ""
        texts.append(text)
    return texts


def columns(text):
    """Return how many columns of a terminal a text takes: Chinese characters take two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def split_lines(texts, width):
    """
    Split a dialogue's token texts into lines: (start, end) pairs of indices.

    A line ends after </s>, after ⏎, or before the token that would pass `width` columns.
    """
    starts, used = [0], 0
    for i in range(1, len(texts)):
        used += columns(texts[i - 1])
        ended = texts[i - 1].endswith(("</s>", "⏎"))
        full = used + columns(texts[i]) > width
        inside_blank_lines = texts[i] == texts[i - 1] == "⏎"
        if (ended or full) and not inside_blank_lines:
            starts.append(i)
            used = 0
    return zip(starts, starts[1:] + [len(texts)])


def highlight(texts, mask, width, colour):
    """Join token texts, learnt ones in green or (without colour) in brackets; pad to `width`."""
    line, length = "", 0
    for learnt, pairs in groupby(zip(texts, mask), key=lambda pair: pair[1]):
        text = "".join(text for text, _ in pairs)
        if colour:
            line += f"\033[30;42m{text}\033[0m" if learnt else f"\033[2m{text}\033[0m"
        else:
            text = f"[{text}]" if learnt else text
            line += text
        length += columns(text)
    return line + " " * (width - length)


def turn_table(conversation, tokenizer):
    """Return lines of a table: each turn's tokens (its </s> included), and who learns them."""
    lines = [f"{'turn':>4}  {'said by':<8}{'tokens':>7}{'human learns':>14}{'gpt learns':>12}"]
    for number, turn in enumerate(conversation, 1):
        size = len(tokenizer.encode(turn["value"])) + 1
        learner = turn["from"] if is_target(turn) else None
        human = size if learner == "human" else 0
        gpt = size if learner == "gpt" else 0
        note = "" if turn["value"] else "   (leaves by saying nothing)"
        lines.append(f"{number:>4}  {turn['from']:<8}{size:>7}{human:>14}{gpt:>12}{note}")
    return lines


def show(record, tokenizer, width, colour, ids=False):
    """Print a dialogue twice, side by side: what Socratic learns, and what the assistant learns."""
    conversation = turns(record)
    tokens, human = encode(conversation, tokenizer, learn="human")
    tokens, gpt = encode(conversation, tokenizer, learn="gpt")
    texts = token_texts(tokens, tokenizer)
    print(f"{'human learnt: Socratic, who asks':<{width}}  gpt learnt: PlatoLM, who answers")
    # a line holds two learnt stretches at most, so four characters are reserved for brackets
    for start, end in split_lines(texts, width - 4):
        left = highlight(texts[start:end], human[start:end], width, colour)
        right = highlight(texts[start:end], gpt[start:end], width, colour)
        print(f"{left}  {right}".rstrip())
    print("\n" + "\n".join(turn_table(conversation, tokenizer)))
    if ids:
        for index, token in enumerate(tokens):
            learner = "human" if human[index] else "gpt" if gpt[index] else "-"
            print(f"{index:>5}{token:>7}  {learner:<6} {token_text(token, tokenizer)!r}")


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

    records = [record for record in read_records(args.file) if "conversations" in record]
    if not 1 <= args.number <= len(records):
        raise UserError(f"{args.file} holds {len(records)} dialogues, so there is none to show as "
                        f"number {args.number}")
    if args.tokenizer:
        tokenizer = Tokenizer.load(args.tokenizer)
    else:
        texts = [turn["value"] for record in records for turn in record["conversations"]]
        tokenizer = Tokenizer.learn(texts, vocab=512)
    width = max(40, (shutil.get_terminal_size((120, 40)).columns - 2) // 2)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    show(records[args.number - 1], tokenizer, width, colour, args.ids)


if __name__ == "__main__":
    run(main)
