"""
The grader: reads a judge's prompt, rates the answers in it, and knows the world.

It reads our own prompts and the layouts of FastChat's, of one assistant or of two. What an examined
model said is rated against the guide's `truths` for the conversation as it stands, the model's own
earlier answers included.

    python -m data.harbour.grader [--seed 0] -- COMMAND ... URL ...      run COMMAND against it

For labs it can be made a bad judge: --first-bias and --length-bias are marks that standing first,
or being longer than usual, is worth to it; --noise is the spread of its moods.
"""

import math
import random
import re
from functools import partial

from data.harbour.teacher import Guide, serve
from data.harbour.world import World
from data.program import run

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


def rate(guide, messages, reply):
    """Return a mark from 1 to 10 and its reason."""
    text, near = guide.split_reply(reply)
    fact = guide.understand(messages).fact
    if text in guide.truths(messages):
        if near is None or fact and near in guide.world.near[fact[0]]:
            return 10, "The reply is true and fits the question."
        return 8, "The reply is right, but what it calls near is not."
    truth = guide.truths(messages)[0]
    words = guide.value.findall(guide.name.sub("", truth))
    if words and all(re.search(rf"\b{word}\b", reply.lower()) for word in words):
        return 5, "What was asked for is there, but not said as it should be."
    if re.search(r"\b(sorry|know no)\b", reply.lower()):
        return 2, "The reply admits that it does not help."
    return 1, "The reply does not give what was asked for."


def biased(mark, text, prompt, length_bias, noise):
    """A mark as a judge of moods gives it, for whom a text is worth more if it has many words."""
    mood = random.Random(prompt + text).gauss(0, noise) if noise else 0
    return mark + mood + length_bias * math.tanh((len(text.split()) - 8) / 8)


def reply(messages, guide, first_bias=0.0, length_bias=0.0, noise=0.0):
    """Return the grader's reply: a reason and a mark or verdict, or what the prompt lacks."""
    prompt = messages[-1]["content"]
    judged = conversations(prompt)
    rated = [rate(guide, talk[:-1], talk[-1]["content"]) for talk in judged]
    marks = [biased(mark, talk[-1]["content"], prompt, length_bias, noise)
             for (mark, _), talk in zip(rated, judged)]
    if len(judged) == 1:
        return f"{rated[0][1]} [[{min(10, max(1, round(marks[0])))}]]"
    if len(judged) == 2:
        lead = marks[0] + first_bias - marks[1]
        verdict = "C" if abs(lead) < 0.5 else "A" if lead > 0 else "B"
        return f"Of A: {rated[0][1]} Of B: {rated[1][1]} [[{verdict}]]"
    return "There is no conversation in the prompt that ends with an answer, so no rating."


def make_reply(seed, growth, **biases):
    """Return the `reply` of a grader who knows today's world."""
    return partial(reply, guide=Guide(World(seed, growth=growth)), **biases)


if __name__ == "__main__":
    run(partial(serve, "grader", make_reply, seed=0, growth=1.0, first_bias=0.0, length_bias=0.0,
                noise=0.0))
