"""
The grader: reads a judge's prompt, rates the answers in it, and knows the world.

It reads our own prompts and the layouts of FastChat's, of one assistant or of two. What an examined
model said is rated against the teacher's `truths` and `key` for the conversation as it stands, the
model's own earlier answers included. Not here: the prompts (mtbench.py).

    python -m data.harbour.grader -- COMMAND ... URL ...    run COMMAND against the grader's address

For labs it can be made a bad judge: --first-bias and --length-bias are marks that standing first,
or being longer than usual, is worth to it; --noise is the spread of its moods.
"""

import argparse
import math
import random
import re
import sys
from functools import partial

from data.harbour.teacher import as_talk, claims, key, named_value, truths, understand
from data.harbour.world import DAY, FACTS

# ---------------------------------------------------------------------------------------------
# reading prompts: the conversations in them, one per assistant

OURS = re.compile(r"^\[conversation(?: with [AB])?\]\n(.*?)\n\[end of conversation\]$",
                  re.DOTALL | re.MULTILINE)
OUR_ROLE = re.compile(r"^(user|assistant): ?", re.MULTILINE)
# FastChat: a question and its answers, or whole conversations; a reference is none of them
QUESTION = re.compile(r"\[(?:User )?Question\]\n(.*?)\n\n\[The Start of", re.DOTALL)
ANSWER = re.compile(r"\[The Start of Assistant(?: [AB])?'s Answer\]\n(.*?)\n\[The End of Assistant",
                    re.DOTALL)
TALK = re.compile(r"<\|The Start of Assistant [AB]'s Conversation with User\|>(.*?)"
                  r"<\|The End of Assistant", re.DOTALL)
ROLE = re.compile(r"^### (User|Assistant)(?: [AB])?:\n", re.MULTILINE)


def messages_of(text, role):
    """A text, split where `role` matches, as messages; None if the roles do not alternate."""
    parts = role.split(text)
    roles, texts = [word.lower() for word in parts[1::2]], parts[2::2]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        return None
    return [{"role": role, "content": text.strip()} for role, text in zip(roles, texts)]


def conversations(prompt):
    """The conversations that a prompt shows, each ending in an answer: one, two, or none."""
    if ours := OURS.findall(prompt):
        found = [messages_of(text, OUR_ROLE) for text in ours]
    elif talks := TALK.findall(prompt):
        found = [messages_of(text, ROLE) for text in talks]
    else:
        question = QUESTION.search(prompt)
        found = question and [[{"role": "user", "content": question[1].strip()},
                               {"role": "assistant", "content": text.strip()}]
                              for text in ANSWER.findall(prompt)]
    return found if found and all(found) and len(found) < 3 else []


# ---------------------------------------------------------------------------------------------
# rating


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


def biased(mark, text, prompt, length_bias, noise):
    """A mark as a judge of moods gives it, for whom a text is worth more if it has many words."""
    mood = random.Random(prompt + text).gauss(0, noise) if noise else 0
    return mark + mood + length_bias * math.tanh((len(text.split()) - 8) / 8)


def reply(messages, first_bias=0.0, length_bias=0.0, noise=0.0):
    """The grader's reply: a reason and a mark or verdict, or what is wrong with the prompt."""
    prompt = messages[-1]["content"]
    found = conversations(prompt)
    rated = [rate(judged[:-1], judged[-1]["content"]) for judged in found]
    marks = [biased(mark, judged[-1]["content"], prompt, length_bias, noise)
             for (mark, _), judged in zip(rated, found)]
    if len(found) == 1:
        return f"{rated[0][1]} [[{min(10, max(1, round(marks[0])))}]]"
    if len(found) == 2:
        lead = marks[0] + first_bias - marks[1]
        verdict = "C" if abs(lead) < 0.5 else "A" if lead > 0 else "B"
        return f"Of A: {rated[0][1]} Of B: {rated[1][1]} [[{verdict}]]"
    return "There is no conversation in the prompt that ends with an answer, so no rating."


def main():
    """Serve the grader to a command."""
    from data.api.server import run_with
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1], add_help=False)
    for flag in ("first", "length"):
        parser.add_argument(f"--{flag}-bias", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0)
    words = sys.argv[1:]
    # what stands after -- is the command's own
    border = words.index("--") if "--" in words else len(words)
    flags, rest = parser.parse_known_args(words[:border])
    graded = partial(reply, **vars(flags))
    raise SystemExit(run_with(graded, name="grader", argv=rest + words[border:]))


if __name__ == "__main__":
    main()
