"""
Long dialogues divided into segments that fit a model's context, by the authors' or FastChat's rule.

A rule takes the length of each turn in tokens, the role of each turn and a limit in tokens, and
returns spans (start, end) of turns, the end exclusive.
"""

from platolm import LABEL


def authors(lengths, roles, limit):
    """
    Return the spans by the authors' rule: a segment begins with the answer that ended the last.

    A turn that no longer fits ends the segment. If it is an answer, it still belongs to it (the
    authors' trainer cuts it short, ours leaves out that round). An overflowing last turn starts no
    segment of its own. A question at the end of the dialogue is lost, even where it fits.

    authors([4] * 8, ["human", "gpt"] * 4, 17)  ->  [(0, 4), (3, 8)]
    authors([4, 4, 4], ["human", "gpt", "human"], 100)  ->  [(0, 2)]
    """
    if roles[-1:] == ["human"]:
        lengths = lengths[:-1]
    spans = []
    start = 0
    total = 0
    last_fits = False
    for i, (length, role) in enumerate(zip(lengths, roles)):
        total += length
        # the very first turn ends nothing, however long it is
        if i and total > limit:
            spans.append((start, i + 1 if role == "gpt" else i))
            start = i - 1 if role == "human" else i
            total = sum(lengths[start:i + 1])
            last_fits = False
        else:
            last_fits = total <= limit
    if last_fits:
        spans.append((start, len(lengths)))
    return spans


def fastchat(lengths, roles, limit):
    """
    Return the spans by FastChat's rule: segments of whole rounds that do not overlap.

    Each turn counts six tokens more. An answer without a question before it and a question without
    an answer are left out, and so is the last round if it no longer fits. A round longer than the
    limit is a segment of its own.

    fastchat([4] * 8, ["human", "gpt"] * 4, 40)  ->  [(0, 4), (4, 8)]
    """
    first = 1 if roles[:1] == ["gpt"] else 0
    end = len(lengths) - (len(lengths) - first) % 2
    spans = []
    start = first
    total = 0
    for i in range(first, end, 2):
        size = sum(lengths[i:i + 2]) + 12
        if total + size > limit:
            # nothing stands before a first round that is too long
            if start < i:
                spans.append((start, i))
            start = i
            total = 0
        elif i + 2 == end:
            spans.append((start, end))
        total += size
    return spans


# each rule, and the text whose tokens it counts: {0} is the speaker's label, {1} the turn's text
RULES = {"authors": (authors, "### {0}{1}\n"), "fastchat": (fastchat, "{1}")}


def spans_of(record, name, tokenizer, limit):
    """Return the spans (start, end) of a dialogue's segments by the rule of this name."""
    rule, template = RULES[name]
    turns = record["conversations"]
    # one more each: LLaMA's own tokenizer puts <s> before every text
    lengths = [1 + len(tokenizer.encode(template.format(LABEL[turn["from"]], turn["value"])))
               for turn in turns]
    return rule(lengths, [turn["from"] for turn in turns], limit)


def split(record, spans):
    """
    Return a dialogue's segments as records.

    A segment's id is the dialogue's id and the number of its first turn; the dialogue's own id is
    in "segment_of" (for a segment of a segment, that of the original dialogue). A segment that is
    followed by more ends in "cut"; the last one keeps the dialogue's own end.
    """
    turns = record["conversations"]
    dialogue = record.get("segment_of", record["id"])
    segments = []
    for start, end in spans:
        segment = record | {"id": f"{record['id']}_{start}", "segment_of": dialogue,
                            "conversations": turns[start:end]}
        if end < len(turns):
            segment["end"] = "cut"
        segments.append(segment)
    return segments
