"""
Files as others write them: JSON lines or one JSON array, told apart by what is in them.

An array is read piece by piece, so that it may be larger than the memory. Not here: what a dialogue
must look like (platolm.wrong), the files of benches (mtbench.py).
"""

import json

from platolm import Problem, sound, wrong

PIECE = 1 << 20


def items(path, check=wrong):
    """The JSON objects of a file, one by one; one that `check` finds wrong is a Problem."""
    with open(path, encoding="utf-8-sig") as file:
        try:
            found = array if first(file) == "[" else lines
            for number, item in enumerate(found(file), 1):
                try:
                    yield sound(item, check)
                except ValueError as error:
                    raise Problem(f"{path}, item {number}: {error}") from None
        except UnicodeDecodeError:
            raise Problem(f"{path} is not a UTF-8 text file") from None
        except (ValueError, RecursionError) as error:
            raise Problem(f"{path} is not JSON ({error})") from None


def first(file):
    """The first character of a file that is no space; the file is wound back."""
    character = " "
    while character.isspace():
        character = file.read(1)
    file.seek(0)
    return character


def lines(file):
    """The values of a file with one on each line."""
    return (json.loads(text) for text in file if text.strip())


def array(file):
    """The elements of a JSON array, however long it is; those must be objects."""
    decode, text = json.JSONDecoder().raw_decode, file.read(PIECE).lstrip()
    place = 1
    while True:
        while text[place:place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        if text[place:place + 1] == "]":
            return
        try:
            if text[place:place + 1] not in ("{", ""):
                raise ValueError("an array of something else than objects")
            item, place = decode(text, place)
            yield item
        except json.JSONDecodeError:
            # a piece of the file may end within an object
            text, place = text[place:], 0
            more = file.read(max(PIECE, len(text)))
            if not more:
                raise
            text += more
