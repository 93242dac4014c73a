"""
Chat pages as Markdown: ShareGPT kept the HTML of ChatGPT's page, and models write Markdown.

The open elements lie on a stack, each with its text so far; one that closes is written into the
one around it. Here: `to_markdown`, `is_html`. Not here: which dialogues to keep (clean.py).
"""

import re
from html import escape
from html.parser import HTMLParser


class Element:
    """An open element: its tag, its attributes, and what it holds so far as Markdown."""

    def __init__(self, tag, attrs=()):
        self.tag, self.attrs, self.text = tag, {key: value or "" for key, value in attrs}, ""
        # a list counts its items; a code box has a language once its code begins
        self.items, self.language = 0, None

    def add(self, text):
        """Append; where both sides have newlines, or spaces, the side with more prevails."""
        if text.startswith("\n"):
            self.text = self.text.rstrip(" ")
            have = len(self.text) - len(self.text.rstrip("\n"))
            text = text[min(have, len(text) - len(text.lstrip("\n"))):]
        elif self.text[-1:].isspace():
            text = text.lstrip(" ")
        self.text += text


# ------------------------------------------------------------------------------------------------
# each kind of element, written into the one around it


def block(text, gap="\n\n"):
    """A text that stands apart from its neighbours."""
    return f"{gap}{text.strip()}{gap}"


def between(text, before, after):
    """A text between two marks: its outer spaces stay outside, and nothing needs no marks."""
    core = text.strip()
    return text.replace(core, f"{before}{core}{after}", 1) if core else text


def marked(mark):
    """A writer of **bold** or *italic* text."""
    return lambda element, around: between(element.text, mark, mark)


def heading(level):
    """A writer of "## Title", on one line."""
    return lambda element, around: block(f"{'#' * level} {' '.join(element.text.split())}")


def link(element, around):
    """[text](address); without an address the text alone."""
    target = element.attrs.get("href")
    return between(element.text, "[", f"]({target})") if target else element.text


def inline_code(element, around):
    """Between backticks, two where the code has one of its own."""
    mark = "``" if "`" in element.text else "`"
    return between(element.text, mark, mark)


def code_box(element, around):
    """Fenced by more backticks than stand in a row inside."""
    code, fence = element.text.strip("\n"), "```"
    while fence in code:
        fence += "`"
    return block(f"{fence}{element.language or ''}\n{code}\n{fence}")


def item(element, around):
    """After the first line, indented as far as its mark is wide."""
    mark = "- "
    if around.tag == "ol":
        start = re.fullmatch(r"\d{1,9}", around.attrs.get("start", ""))
        mark = f"{int(start[0] if start else 1) + around.items}. "
    around.items += 1
    return block(re.sub(r"\n(?!\n)", "\n" + " " * len(mark), mark + element.text.strip()), "\n")


def quote(element, around):
    """Each line after a "> "."""
    return block("\n".join(f"> {line}".rstrip() for line in element.text.strip().split("\n")))


def cell(element, around):
    """One line of text and the bar that ends it."""
    text = " ".join(element.text.split()).replace("|", r"\|")
    return f" {text} |"


def table(element, around):
    """The first row is the header, whatever the page says: Markdown has no other tables."""
    head, *rows = element.text.strip().split("\n")
    columns = len(re.findall(r"(?<!\\)\|", head)) - 1
    return block("\n".join([head, "|" + " --- |" * columns, *rows]))


HIDDEN = ("script", "style", "button", "svg", "math")
WRITTEN = {
    "p": lambda element, around: block(element.text),
    "a": link, "code": inline_code, "pre": code_box, "blockquote": quote, "li": item,
    "table": table, "tr": lambda element, around: f"\n|{element.text}\n", "td": cell, "th": cell,
    "b": marked("**"), "strong": marked("**"), "i": marked("*"), "em": marked("*"),
    **{f"h{level}": heading(level) for level in range(1, 7)},
    # a list in another's item follows without an empty line
    **dict.fromkeys(("ul", "ol"), lambda element, around:
                    block(element.text, "\n" if around.tag == "li" else "\n\n")),
    # these vanish with all they hold; a formula is on the page a second time, as text
    **dict.fromkeys(HIDDEN, lambda element, around: ""),
}
# these hold nothing
ALONE = {
    "hr": lambda element: block("---"),
    "img": lambda element: f"![{element.attrs.get('alt', '')}]({element.attrs.get('src', '')})",
}
# of these nothing is left but what they hold
BARE = ("div", "span", "thead", "tbody", "tfoot")
# what begins in one of its holders ends its like there, closed or not
HOLDERS = {"li": ("ul", "ol"), "tr": ("table",), "td": ("tr",), "th": ("tr",)}

KNOWN = "|".join([*WRITTEN, *ALONE, *BARE, "br"])
CLOSING = re.compile(rf"</({KNOWN})\s*>", re.I)
OPENING = re.compile(rf"\s*<({KNOWN})[\s/>]", re.I)
PAGER = re.compile(r"\A\s*\d+ / \d+[ \t]*(\n\s*|(?=<))")
COMMENT = re.compile(r"<!--[^<>]*-->")
# not markup, though a parser might think so; numbers as long as that stand for no character
TEXT = re.compile(rf"<(?!/?({KNOWN})[\s/>])|&(?=#\d{{9}})", re.I)

# ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page on its way to Markdown."""

    def __init__(self):
        super().__init__()
        self.open = [Element("page")]

    def inside(self, *tags):
        """The innermost open element of these kinds, or None."""
        return next((e for e in reversed(self.open) if e.tag in tags), None)

    def close_until(self, element):
        """Close what is open within an element."""
        while self.open[-1] is not element:
            done = self.open.pop()
            self.open[-1].add(WRITTEN[done.tag](done, self.open[-1]))

    def handle_starttag(self, tag, attrs):
        element, box = Element(tag, attrs), self.inside("pre")
        if box and tag not in HIDDEN:
            self.start_in_box(element, box)
        elif tag == "br":
            # two of them are two newlines: nothing prevails
            self.open[-1].text = self.open[-1].text.rstrip(" ") + "\n"
        elif tag in ALONE:
            self.open[-1].add(ALONE[tag](element))
        elif tag == "div":
            self.open[-1].add("\n")
        elif tag not in BARE:
            if holder := self.inside(*HOLDERS.get(tag, ())):
                self.close_until(holder)
            self.open.append(element)

    def start_in_box(self, element, box):
        """In a code box the code counts alone; a word before it names its language."""
        if element.tag == "code" and box.language is None:
            named = re.search(r"\blanguage-([^\s`]+)", element.attrs.get("class", ""))
            header = box.text.replace("Copy code", "").split()
            box.language, box.text = named[1] if named else (header or [""])[0], ""
        elif element.tag == "br":
            box.text += "\n"

    def handle_endtag(self, tag):
        if element := self.inside(tag):
            self.close_until(self.open[self.open.index(element) - 1])
        elif tag == "div" and not self.inside("pre"):
            self.open[-1].add("\n")

    def handle_data(self, text):
        if self.inside("pre"):
            self.open[-1].text += text
        # between the items of a list, or the cells of a row, a page may have spaces
        elif text.strip() or self.open[-1].tag not in ("ul", "ol", "table", "tr"):
            self.open[-1].add(re.sub(r"\s+", " ", text))


def is_html(text):
    """Whether a text is a page: it begins with a known tag, and some known tag is closed."""
    return bool(OPENING.match(PAGER.sub("", text)) and CLOSING.search(text))


def to_markdown(text):
    """
    A turn of a chat page as Markdown; one that is no HTML stays as it is.

    Of either, a pager's line at the start ("2 / 3") and a counter at the end ("Copy123 chars / 45
    words") are left out.
    """
    if is_html(text):
        page = Page()
        page.feed(TEXT.sub(lambda sign: escape(sign[0]), COMMENT.sub("", text)))
        page.close()
        page.close_until(page.open[0])
        text = re.sub(r"\n{3,}", "\n\n", page.open[0].text).strip()
    text = PAGER.sub("", text)
    counter = re.search(r"\bCopy\d+ chars / \d+ words\s*\Z", text)
    return text[:counter.start()].rstrip() if counter else text
