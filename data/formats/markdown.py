"""
HTML of chat pages converted to Markdown: ShareGPT kept ChatGPT's HTML, but models write Markdown.

The open elements are a stack, each with its text so far as Markdown. An element that closes is
written into its parent by the function that WRITERS has for its tag.
"""

import re
from html import escape
from html.parser import HTMLParser


class Element:
    """An open element: its tag, its attributes, and its contents so far as Markdown."""

    def __init__(self, tag, attrs=()):
        self.tag = tag
        self.attrs = {key: value or "" for key, value in attrs}
        self.text = ""
        # of a list: the number of its items
        self.items = 0
        # of a code box: its language, None until its code begins
        self.language = None

    def add(self, text):
        """Append a text; of white space on both sides of the seam only the longer run stays."""
        if text.startswith("\n"):
            self.text = self.text.rstrip(" ")
            newlines_before = len(self.text) - len(self.text.rstrip("\n"))
            newlines_after = len(text) - len(text.lstrip("\n"))
            text = text[min(newlines_before, newlines_after):]
        elif self.text[-1:].isspace():
            text = text.lstrip(" ")
        self.text += text


# ------------------------------------------------------------------------------------------------
# writers: (element, parent) -> the Markdown, a text, that the element adds to its parent


def block(text, gap="\n\n"):
    """Put empty lines around a text, or another gap."""
    return f"{gap}{text.strip()}{gap}"


def surround(text, before, after):
    """Put marks around a text, inside its outer spaces; an empty text gets none."""
    core = text.strip()
    return text.replace(core, f"{before}{core}{after}", 1) if core else text


def paragraph(element, parent):
    """Write a paragraph."""
    return block(element.text)


def emphasis(mark):
    """Make a writer of **bold** or *italic* text."""
    def write(element, parent):
        """Write the element's text between two marks."""
        return surround(element.text, mark, mark)
    return write


def heading(level):
    """Make a writer of "## Title", on one line."""
    def write(element, parent):
        """Write the element's text as a heading."""
        return block(f"{'#' * level} {' '.join(element.text.split())}")
    return write


def link(element, parent):
    """Write [text](address), or only the text if there is no address."""
    address = element.attrs.get("href")
    return surround(element.text, "[", f"]({address})") if address else element.text


def inline_code(element, parent):
    """Write code between backticks, two of them if the code has one itself."""
    mark = "``" if "`" in element.text else "`"
    return surround(element.text, mark, mark)


def code_box(element, parent):
    """Write a fenced code block; the fence is longer than any run of backticks in the code."""
    code = element.text.strip("\n")
    fence = "```"
    while fence in code:
        fence += "`"
    return block(f"{fence}{element.language or ''}\n{code}\n{fence}")


def list_item(element, parent):
    """Write "- text" or "3. text"; further lines are indented by the width of the mark."""
    mark = "- "
    if parent.tag == "ol":
        start = re.fullmatch(r"\d{1,9}", parent.attrs.get("start", ""))
        first = int(start[0]) if start else 1
        mark = f"{first + parent.items}. "
    parent.items += 1
    text = mark + element.text.strip()
    # empty lines are not indented
    return block(re.sub(r"\n(?!\n)", "\n" + " " * len(mark), text), "\n")


def list_block(element, parent):
    """Write a list; one inside an item of another follows without an empty line."""
    return block(element.text, "\n" if parent.tag == "li" else "\n\n")


def quote(element, parent):
    """Write a quotation: "> " before each line."""
    lines = element.text.strip().split("\n")
    return block("\n".join(f"> {line}".rstrip() for line in lines))


def table_cell(element, parent):
    """Write a cell of a table as one line, and the bar that ends it."""
    text = " ".join(element.text.split()).replace("|", r"\|")
    return f" {text} |"


def table_row(element, parent):
    """Write a row of a table as one line."""
    return f"\n|{element.text}\n"


def table(element, parent):
    """Write a table; its first row becomes the header, without which Markdown has no tables."""
    header, *rows = element.text.strip().split("\n")
    columns = len(re.findall(r"(?<!\\)\|", header)) - 1
    return block("\n".join([header, "|" + " --- |" * columns, *rows]))


def nothing(element, parent):
    """Leave an element out, with all that it holds."""
    return ""


def horizontal_rule(element):
    """Write a horizontal rule."""
    return block("---")


def image(element):
    """Write ![description](address)."""
    return f"![{element.attrs.get('alt', '')}]({element.attrs.get('src', '')})"


def formula(element, parent):
    """Write $TeX$, or $$TeX$$ for a formula that stands alone, if the page has its TeX."""
    mark = "$$" if element.attrs.get("display") == "block" else "$"
    tex = " ".join(element.attrs.get("data-tex", "").split())
    return f"{mark}{tex}{mark}" if tex else ""


HIDDEN = ("script", "style", "button", "svg", "math")
WRITERS = {
    "p": paragraph, "a": link, "code": inline_code, "pre": code_box, "blockquote": quote,
    "li": list_item, "table": table, "tr": table_row, "td": table_cell, "th": table_cell,
    "b": emphasis("**"), "strong": emphasis("**"), "i": emphasis("*"), "em": emphasis("*"),
    **{f"h{level}": heading(level) for level in range(1, 7)},
    "ul": list_block, "ol": list_block, **dict.fromkeys((*HIDDEN, "span"), nothing),
    "math": formula,
}
# elements without contents
EMPTY = {"hr": horizontal_rule, "img": image}
# elements of which only the contents are kept
TRANSPARENT = ("div", "span", "thead", "tbody", "tfoot")
# tag: its containers; an element that begins closes the last one in the same container, if need be
CONTAINERS = {"li": ("ul", "ol"), "tr": ("table",), "td": ("tr",), "th": ("tr",)}

KNOWN = "|".join([*WRITERS, *EMPTY, *TRANSPARENT, "br"])
CLOSING = re.compile(rf"</({KNOWN})\s*>", re.I)
OPENING = re.compile(rf"\s*<({KNOWN})[\s/>]", re.I)
# "2 / 3", as ChatGPT's page numbers the versions of an answer
PAGER = re.compile(r"\A\s*\d+ / \d+[ \t]*(\n\s*|(?=<))")
COMMENT = re.compile(r"<!--[^<>]*-->")
# KaTeX writes each formula twice: as math, with its TeX inside, and as spans that look like it
TEX = re.compile(r"<math\b([^<>]*)>((?!</math>).)*?<annotation encoding=\"application/x-tex\">"
                 r"(?P<tex>[^<]*)</annotation>.*?</math>", re.S | re.I)
# characters that HTMLParser would take for markup though they are text: a < before an unknown
# tag, and an & before a number too long for a character
TEXT = re.compile(rf"<(?!/?({KNOWN})[\s/>])|&(?=#\d{{9}})", re.I)

# ------------------------------------------------------------------------------------------------


class MarkdownConverter(HTMLParser):
    """
    A parser that converts the HTML fed to it; the Markdown is the text of stack[0].

    has_tex: the page has the TeX of its formulas, so that the spans that show them are left out.
    """

    def __init__(self, has_tex):
        super().__init__()
        self.stack = [Element("page")]
        self.has_tex = has_tex

    def innermost(self, *tags):
        """Return the innermost open element with one of these tags, or None."""
        for element in reversed(self.stack):
            if element.tag in tags:
                return element
        return None

    def close_until(self, element):
        """Close, and write into their parents, the elements that are open inside `element`."""
        while self.stack[-1] is not element:
            closed = self.stack.pop()
            parent = self.stack[-1]
            parent.add(WRITERS[closed.tag](closed, parent))

    def handle_starttag(self, tag, attrs):
        """Open an element, or write one without contents."""
        element = Element(tag, attrs)
        box = self.innermost("pre")
        if box and tag not in HIDDEN:
            self.start_in_code_box(element, box)
        elif tag == "span":
            shows_formula = self.has_tex and "katex-html" in element.attrs.get("class", "")
            # within such a span all others count, to find its end
            if shows_formula or self.innermost("span"):
                self.stack.append(element)
        elif tag == "br":
            # not by add(): two line breaks are two newlines
            self.stack[-1].text = self.stack[-1].text.rstrip(" ") + "\n"
        elif tag in EMPTY:
            self.stack[-1].add(EMPTY[tag](element))
        elif tag == "div":
            self.stack[-1].add("\n")
        elif tag not in TRANSPARENT:
            container = self.innermost(*CONTAINERS.get(tag, ()))
            if container:
                self.close_until(container)
            self.stack.append(element)

    def start_in_code_box(self, element, box):
        """Handle a tag inside a code box, where only the code counts, and its language."""
        if element.tag == "code" and box.language is None:
            # ChatGPT's page has a header before the code: "pythonCopy code"
            named = re.search(r"\blanguage-([^\s`]+)", element.attrs.get("class", ""))
            header = box.text.replace("Copy code", "").split()
            if named:
                box.language = named[1]
            else:
                box.language = header[0] if header else ""
            box.text = ""
        elif element.tag == "br":
            box.text += "\n"

    def handle_endtag(self, tag):
        """Close the innermost element with this tag, and all that is open inside it."""
        element = self.innermost(tag)
        if element:
            self.close_until(self.stack[self.stack.index(element) - 1])
        elif tag == "div" and not self.innermost("pre"):
            self.stack[-1].add("\n")

    def handle_data(self, text):
        """Add text: in a code box as it is, elsewhere with single spaces."""
        if self.innermost("pre"):
            self.stack[-1].text += text
        # white space between the items of a list or the cells of a row is not text
        elif text.strip() or self.stack[-1].tag not in ("ul", "ol", "table", "tr"):
            self.stack[-1].add(re.sub(r"\s+", " ", text))


def is_html(text):
    """Tell whether a text is HTML: it begins with a known tag, and some known tag is closed."""
    return bool(OPENING.match(PAGER.sub("", text)) and CLOSING.search(text))


def keep_tex(match):
    """Write a formula that TEX matches as one empty tag, its TeX in an attribute."""
    tex = match["tex"].replace('"', "&quot;")
    return f'<math{match[1]} data-tex="{tex}"></math>'


def without_page_marks(text):
    """Remove a pager at the start ("2 / 3"), a counter at the end ("Copy123 chars / 45 words")."""
    text = PAGER.sub("", text)
    counter = re.search(r"\bCopy\d+ chars / \d+ words\s*\Z", text)
    return text[:counter.start()].rstrip() if counter else text


def to_markdown(text):
    """
    Convert a turn of a chat page to Markdown, without what only the page wrote; a text that is not
    HTML stays as it is.
    """
    if is_html(text):
        html, formulas = TEX.subn(keep_tex, COMMENT.sub("", text))
        converter = MarkdownConverter(has_tex=formulas > 0)
        converter.feed(TEXT.sub(lambda match: escape(match[0]), html))
        converter.close()
        page = converter.stack[0]
        converter.close_until(page)
        text = re.sub(r"\n{3,}", "\n\n", page.text).strip()
    return without_page_marks(text)
