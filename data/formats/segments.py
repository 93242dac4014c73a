"""
Long dialogues as segments that fit a model's context, by the authors' rule or by FastChat's.

A rule takes the tokens of each turn, who said it and a limit, and gives spans (start, end) of
turns. Here: the two rules, `spans_of` a record, `split`. Not here: the other steps (clean.py).
"""

from platolm import LABEL


def authors(lengths, roles, limit):
    """
    Segments that share an answer: the next one begins with it, so its human goes on from there.

    A turn that no longer fits ends the segment. If it is an answer, it still belongs to it (the
    authors' trainer cuts it short, ours leaves out that round). An overflowing last turn starts no
    segment; if it is a question, it is lost.

    authors([4] * 8, ["human", "gpt"] * 4, 17)  ->  [(0, 4), (3, 8)]
    """
    spans, start, total, fits = [], 0, 0, False
    for i, (length, role) in enumerate(zip(lengths, roles)):
        total += length
        fits = total <= limit
        # the first turn of all ends nothing, however long it is
        if i and not fits:
            spans.append((start, i + (role == "gpt")))
            start = i - (role == "human")
            total = sum(lengths[start:i + 1])
    return spans + [(start, len(lengths))] if fits else spans


def fastchat(lengths, roles, limit):
    """
    Segments of whole rounds that share nothing; each turn counts six tokens more.

    An answer that nobody asked for and a question without an answer are left out, and so is the
    last round if it no longer fits. A round too long for any segment is one of its own.

    fastchat([4] * 8, ["human", "gpt"] * 4, 40)  ->  [(0, 4), (4, 8)]
    """
    first = start = int(roles[:1] == ["gpt"])
    spans, total, end = [], 0, len(lengths) - (len(lengths) - first) % 2
    for i in range(first, end, 2):
        size = sum(lengths[i:i + 2]) + 12
        if total + size > limit:
            spans.append((start, i))
            start, total = i, 0
        elif i + 2 == end:
            spans.append((start, end))
        total += size
    # before a first round that is too long, there is nothing
    return [span for span in spans if span[0] < span[1]]


# each rule, and the text whose tokens it counts, of {0} a label and {1} what was said
RULES = {"authors": (authors, "### {0}{1}\n"), "fastchat": (fastchat, "{1}")}


def spans_of(record, rule, tokenizer, limit):
    """The spans of a dialogue by the rule of this name."""
    find, form = RULES[rule]
    said = [(turn["from"], turn["value"]) for turn in record["conversations"]]
    # and one more: LLaMA's own tokenizer puts a <s> before all that it is given
    lengths = [1 + len(tokenizer.encode(form.format(LABEL[who], text))) for who, text in said]
    return find(lengths, [who for who, _ in said], limit)


def split(record, spans):
    """
    The segments of a dialogue as records of their own, each named by the turn it starts with, and
    with the dialogue's id (of a segment of others, that of the whole) under "segment_of".

    A segment that is followed by more ends in "cut"; only the last keeps the dialogue's own end.
    """
    said = record["conversations"]
    whole = record.get("segment_of", record["id"])
    return [record | {"id": f"{record['id']}_{start}", "segment_of": whole,
                      "conversations": said[start:end]}
            | ({"end": "cut"} if end < len(said) else {}) for start, end in spans]
