"""
One dialogue in any of seven formats, converted to our record.

    ShareGPT, FastChat      {"conversations": [{"from": "human", "value": text}, ...]}
    SocraticChat            the same, with "session_id" and "num_of_rounds"
    OpenAI, UltraChat-200k  {"messages": [{"role": "user", "content": text or parts}, ...]}
    UltraChat               {"data": [text, ...]}, the human first
    WildChat, LMSYS-Chat    {"conversation": [{"role", "content"}, ...]}
    Baize                   {"topic", "input": "a first line [|Human|] text [|AI|] text ..."}
    OASST's trees           {"prompt": {"role": "prompter", "text", "replies": [...]}}

All other keys of an item are copied to the record. What of an item is not used is counted.
"""

import math
import re
from collections import Counter

from platolm import END_REASONS, is_target, mark_turns, record_error

# the names of the roles in all formats, in lower case, and ours
ROLES = {"human": "human", "user": "human", "prompter": "human",
         "gpt": "gpt", "chatgpt": "gpt", "bing": "gpt", "bard": "gpt", "assistant": "gpt",
         "ai": "gpt", "system": "system", "developer": "system"}
# where a message calls a tool
CALLS = ("tool_calls", "function_call")


def to_turn(role, content):
    """Make a turn {"from", "value"} of a role in any format and a text, or a list of text parts."""
    speaker = ROLES.get(str(role).lower())
    if not speaker:
        raise ValueError(f"an unknown role {str(role)[:40]!r}")
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else part["text"] for part in content]
        content = "\n".join(parts)
    return {"from": speaker, "value": content}


def to_turns(messages):
    """
    Convert messages {"role", "content"}, or {"from", "value"} as in our records, to turns.

    A message marked as not to be learnt stays so, in any format: {"loss": False}.
    """
    turns = []
    for message in messages:
        if "from" in message:
            # such a turn keeps its other keys
            turns.append(message | to_turn(message["from"], message.get("value")))
            continue
        turn = to_turn(message.get("role"), message.get("content"))
        if not is_target(message):
            turn["loss"] = False
        for key in CALLS:
            if message.get(key):
                turn[key] = message[key]
        turns.append(turn)
    return turns


# ------------------------------------------------------------------------------------------------
# the formats: item -> (turns, other keys of the record, as far as they have another name there)


def sharegpt(item):
    """Read turns with "from"; SocraticChat names a dialogue by "session_id", WizardLM by "idx"."""
    return to_turns(item["conversations"]), {"id": item.get("session_id", item.get("idx"))}


def openai(item):
    """Read turns with "role"; UltraChat-200k has a "prompt_id", other files have no id."""
    return to_turns(item["messages"]), {"id": item.get("prompt_id")}


def wildchat(item):
    """Read turns with "role", named by "conversation_id" or, in newer files, by a hash."""
    name = item.get("conversation_id", item.get("conversation_hash"))
    return to_turns(item["conversation"]), {"id": name}


def ultrachat(item):
    """Read texts of human and gpt in alternation."""
    roles = ("human", "gpt")
    return [to_turn(roles[i % 2], text) for i, text in enumerate(item["data"])], {}


def baize(item):
    """Read a transcript "first line [|Human|] text [|AI|] text ... [|Human|]"."""
    _, *parts = re.split(r"\[\|(Human|AI)\|\]", item["input"])
    if not parts:
        raise ValueError('no [|Human|] in "input"')
    turns = [to_turn(role, text.strip()) for role, text in zip(parts[::2], parts[1::2])]
    # most transcripts end with the human's mark and no text
    if turns[-1] == {"from": "human", "value": ""}:
        turns.pop()
    # the topic is no id: many dialogues have the same
    return turns, {}


def oasst(item):
    """Read a tree of replies: its root, the best reply to it, the best reply to that, and so on."""
    turns = []
    replies = [item["prompt"]]
    while replies := [reply for reply in replies if not reply.get("deleted")]:
        # the best reply has the lowest rank; without ranks it is the first
        best = min(replies, key=lambda reply: math.inf if reply.get("rank") is None
                   else reply["rank"])
        turns.append(to_turn(best.get("role"), best.get("text")))
        replies = best.get("replies") or []
    return turns, {"id": item.get("message_tree_id"), "lang": item["prompt"].get("lang")}


# the key that identifies a format, the type of its value, and the format's function
FORMATS = {"conversations": (list, sharegpt), "messages": (list, openai), "data": (list, ultrachat),
           "conversation": (list, wildchat), "input": (str, baize), "prompt": (dict, oasst)}

# ------------------------------------------------------------------------------------------------


def find_format(item):
    """Return the key of FORMATS by which an item is read, the first that fits, or None."""
    for key, (expected, _) in FORMATS.items():
        value = item.get(key)
        # Alpaca's tasks have an "input", too, without the marks of a transcript
        if isinstance(value, expected) and (key != "input" or "[|" in value):
            return key
    return None


def is_empty(turn):
    """Whether a turn was opened and left empty."""
    value = turn["value"]
    return value is None or isinstance(value, str) and not value.strip()


def convert_item(item, key, unused):
    """
    Convert an item of the format with this key to a record, which is not validated yet.

    unused: a Counter of what of it no model reads, by kind.
    """
    try:
        turns, renamed = FORMATS[key][1](item)
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f'something in "{key}" is no turn') from None
    rest = {name: value for name, value in (renamed | item).items() if name not in FORMATS}
    if "loss_mask" in rest:
        turns = mark_turns(turns, rest.pop("loss_mask"))
    # other formats use "end" for other things
    if rest.get("end") not in list(END_REASONS):
        rest.pop("end", None)
    system = [turn["value"] for turn in turns if turn["from"] == "system" and turn["value"]]
    if system:
        rest["system"] = "\n\n".join(map(str, system))
    if rest.get("system"):
        unused["system lines (kept in the record, no model reads them)"] += 1
    turns = [turn for turn in turns if turn["from"] != "system"]
    unused["calls of tools"] += sum(any(turn.get(call) for call in CALLS) for turn in turns)
    # from an empty turn on a dialogue is of no use; many end with one
    full = next((i for i, turn in enumerate(turns) if i and is_empty(turn)), len(turns))
    if full < len(turns):
        unused["turns from an empty one on"] += len(turns) - full
        ended = full == len(turns) - 1 and rest.get("end")
        rest["end"] = ended or "cut"
    name = rest.pop("id", None)
    record = {} if name is None else {"id": str(name)}
    record["conversations"] = turns[:full]
    return record | rest


def to_record(item, unused=None):
    """
    Convert an item of any of these formats, or a base model's {"text"}, to a valid record.

    unused: a Counter of what of the items no model reads, by kind. Raises ValueError with the
    reason if the item is in no known format or makes no valid record.
    """
    key = find_format(item)
    if key is None and "parent_id" in item:
        raise ValueError("one message of a tree; the file of whole trees is needed")
    if key is None and "text" not in item:
        keys = ", ".join(sorted(map(str, item))[:6])
        raise ValueError(f"a dialogue in no format known here (its keys: {keys})")
    parts = Counter()
    record = convert_item(item, key, parts) if key else item
    error = record_error(record)
    if error:
        raise ValueError(error)
    if unused is not None:
        unused.update(+parts)
    return record
