"""
Dialogues as others write them, one at a time, as our records.

    ShareGPT, FastChat      {"conversations": [{"from": "human", "value": text}, ...]}
    SocraticChat            the same, with "session_id" and "num_of_rounds"
    OpenAI, UltraChat-200k  {"messages": [{"role": "user", "content": text or parts}, ...]}
    UltraChat               {"data": [text, ...]}, the human first
    WildChat, LMSYS-Chat    {"conversation": [{"role", "content"}, ...]}
    Baize                   {"topic", "input": "a first line [|Human|] text [|AI|] text ..."}
    OASST's trees           {"prompt": {"role": "prompter", "text", "replies": [...]}}

What is under other keys travels along. Here: one item. Not here: files of them (files.py).
"""

import math
import re

from platolm import END_REASONS, record_error

# who speaks, in the words of all formats
ROLES = {"human": "human", "user": "human", "prompter": "human",
         "gpt": "gpt", "chatgpt": "gpt", "bing": "gpt", "bard": "gpt", "assistant": "gpt",
         "ai": "gpt", "system": "system", "developer": "system"}


def turn_of(role, said):
    """A turn of ours, or of "system"; what is said is a text, or parts with texts in them."""
    who = ROLES.get(str(role).lower())
    if not who:
        raise ValueError(f"an unknown role {str(role)[:40]!r}")
    if isinstance(said, list):
        said = "\n".join(part if isinstance(part, str) else part["text"] for part in said)
    return {"from": who, "value": said}


def spoken(turns):
    """The turns of a list of {"role", "content"}, or of {"from", "value"} as in our records."""
    # the other keys of a turn of ours stay
    return [turn | turn_of(turn["from"], turn.get("value")) if "from" in turn else
            turn_of(turn.get("role"), turn.get("content")) for turn in turns]


# ------------------------------------------------------------------------------------------------
# formats: an item -> its turns, and what else is to be known of it


def sharegpt(item):
    """Turns with "from"; SocraticChat's dialogues have a "session_id", WizardLM's an "idx"."""
    return spoken(item["conversations"]), {"id": item.get("session_id", item.get("idx"))}


def openai(item):
    """Turns with "role"; UltraChat-200k has a "prompt_id", others no id at all."""
    if any(message.get("weight") == 0 for message in item["messages"]):
        raise ValueError("an answer that is not to be learnt (weight 0); here all are")
    return spoken(item["messages"]), {"id": item.get("prompt_id")}


def wildchat(item):
    """Turns with "role", and an id or, in newer files, a hash."""
    name = item.get("conversation_id", item.get("conversation_hash"))
    return spoken(item["conversation"]), {"id": name}


def ultrachat(item):
    """Texts in alternation."""
    return [turn_of(("human", "gpt")[n % 2], text) for n, text in enumerate(item["data"])], {}


def baize(item):
    """A transcript; all of them begin with the same line, and most end with a human's mark."""
    _, *parts = re.split(r"\[\|(Human|AI)\|\]", item["input"])
    if not parts:
        raise ValueError('no [|Human|] in "input"')
    turns = [turn_of(role, text.strip()) for role, text in zip(parts[::2], parts[1::2])]
    silent = turns[-1] == {"from": "human", "value": ""}
    # a topic is no id: there are many dialogues on one
    return turns[:-1] if silent else turns, {}


def oasst(item):
    """A tree: its root, the best reply to it, the best reply to that, as far as it goes."""
    turns, replies = [], [item["prompt"]]
    while replies := [reply for reply in replies if not reply.get("deleted")]:
        # the best has the lowest rank; of those without one the first is as good as any
        best = min(replies, key=lambda reply: math.inf if reply.get("rank") is None
                   else reply["rank"])
        turns.append(turn_of(best.get("role"), best.get("text")))
        replies = best.get("replies") or []
    return turns, {"id": item.get("message_tree_id"), "lang": item["prompt"].get("lang")}


# the key that gives a format away, and what is under it; the first that fits
FORMATS = {"conversations": (list, sharegpt), "messages": (list, openai), "data": (list, ultrachat),
           "conversation": (list, wildchat), "input": (str, baize), "prompt": (dict, oasst)}

# ------------------------------------------------------------------------------------------------


def translate(item, key):
    """The record made of an item of the format that has this key; not yet checked."""
    try:
        turns, known = FORMATS[key][1](item)
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f'something in "{key}" is no turn') from None
    rest = {name: value for name, value in (known | item).items() if name not in FORMATS}
    # what others call the end is another thing
    if rest.get("end") not in list(END_REASONS):
        rest.pop("end", None)
    # many a dialogue ends in a turn that was opened, and in which nobody spoke
    while len(turns) > 1 and isinstance(turns[-1]["value"], str) and not turns[-1]["value"].strip():
        turns, rest["end"] = turns[:-1], rest.get("end", "cut")
    told = [turn["value"] for turn in turns if turn["from"] == "system" and turn["value"]]
    if told:
        rest["system"] = "\n\n".join(map(str, told))
    name = rest.pop("id", None)
    record = {} if name is None else {"id": str(name)}
    return record | {"conversations": [t for t in turns if t["from"] != "system"]} | rest


def to_record(item):
    """An item of any of these formats, or a base model's text, as a sound record; or ValueError."""
    key = next((key for key, (kind, _) in FORMATS.items() if isinstance(item.get(key), kind)
                and (key != "input" or "[|" in item[key])), None)
    if key is None and "parent_id" in item:
        raise ValueError("one message of a tree; the file of whole trees is needed")
    if key is None and "text" not in item:
        keys = ", ".join(sorted(map(str, item))[:6])
        raise ValueError(f"a dialogue in no format known here (its keys: {keys})")
    record = translate(item, key) if key else item
    if trouble := record_error(record):
        raise ValueError(trouble)
    return record
