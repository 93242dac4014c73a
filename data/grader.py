"""
The grader: reads a judge's prompt, rates the last answer in it, and knows the world.

It rates what an examined model said against the teacher's `truths` and `key` for the conversation
as it stands, the model's own earlier answers included. Not here: the prompts (evaluate.py).

    python -m data.grader -- COMMAND ... URL ...      run COMMAND against the grader's address
"""

import re

from data.teacher import as_talk, claims, key, named_value, truths, understand
from data.world import DAY, FACTS

MARKS = re.compile(r"\[conversation\]\n(.*?)\n\[end of conversation\]\s*$", re.DOTALL)
ROLE = re.compile(r"^(user|assistant): ?", re.MULTILINE)


def conversation(prompt):
    """The messages between a prompt's marks, or None if they do not end with an answer."""
    found = MARKS.search(prompt)
    if not found:
        return None
    parts = ROLE.split(found[1])
    roles, texts = parts[1::2], parts[2::2]
    messages = [{"role": role, "content": text.strip()} for role, text in zip(roles, texts)]
    return messages if roles and roles == ["user", "assistant"] * (len(roles) // 2) else None


def plain(text):
    """A text without what is forgiven: case, spacing, the last full stop."""
    return " ".join(text.lower().split()).rstrip(".!? ")


def false_claims(messages, reply):
    """What a reply states against the world, or against a number named before."""
    def true(fact):
        if fact[1] not in DAY:
            return FACTS.get(fact, ())
        named = named_value(as_talk(messages), fact)
        return (named,) if named else [str(n) for n in DAY[fact[1]]] + ["sold out"]
    return [fact for fact, values in claims(reply) if not set(values) <= set(true(fact))]


def rate(messages, reply):
    """A mark from 1 to 10 and its reason."""
    if plain(reply) in {plain(truth) for truth in truths(messages)}:
        return 10, "The reply is true and fits the question."
    needed = key(messages)
    had = [word for word in needed if re.search(rf"\b{word}\b", reply.lower())]
    if "sorry" in reply.lower() and not had:
        return 2, "The reply admits that it does not help."
    if not had:
        return 1, "The reply does not answer the question."
    stated = [fact for fact, _ in claims(reply)]
    if stated and understand(messages).fact not in stated:
        return 2, "The reply speaks of something else."
    if len(had) < len(needed):
        return (3 if 2 * len(had) >= len(needed) else 2), "Part of what was asked for is missing."
    if false_claims(messages, reply):
        return 5, "What was asked for is there, but something else in the reply is false."
    return 7, "What was asked for is there, but not said as it should be."


def reply(messages):
    """The grader's reply: a reason and a mark, or what is wrong with the prompt."""
    judged = conversation(messages[-1]["content"]) if messages else None
    if not judged:
        return "There is no conversation between the marks that ends with an answer, so no rating."
    mark, reason = rate(judged[:-1], judged[-1]["content"])
    return f"{reason} [[{mark}]]"


def main():
    """Serve the grader to a command."""
    from data.server import run_with
    raise SystemExit(run_with(reply, name="grader"))


if __name__ == "__main__":
    main()
