"""
Pieces of a page: elements, tables, cards of dialogues, and pictures as SVG, one function each.

What was said in a dialogue is escaped here. Not here: which pieces make the report (report.py).
"""

from html import escape

from data.measure.tables import number

# ---------------------------------------------------------------------------------------------
# pieces of a page


def tag(name, inside, **attributes):
    """An element; class_ is written class. What is `inside` must be HTML already."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
                    for key, value in attributes.items())
    return f"<{name}{words}>{inside}</{name}>"


def table(head, rows):
    """A table that scrolls where it does not fit; cells are text or numbers."""
    def cells(kind, row):
        texts = [cell if isinstance(cell, str) else number(cell, 2) for cell in row]
        return tag("tr", "".join(tag(kind, escape(text)) for text in texts))
    return tag("div", tag("table", cells("th", head) + "".join(cells("td", row) for row in rows)),
               class_="scroll")


def figure(inside, caption):
    """A picture or table with the words under it."""
    return tag("figure", inside + tag("figcaption", escape(caption)))


def talk(title, said, after=""):
    """A dialogue as a card."""
    lines = [tag("div", ("<b>" if turn["from"] == "human" else "") + escape(turn["value"])
                 + ("</b>" if turn["from"] == "human" else ""), class_=turn["from"])
             for turn in said]
    return tag("div", tag("h3", escape(title)) + "".join(lines) + after, class_="talk")


# ---------------------------------------------------------------------------------------------
# pictures


def bars(rows, low=0.0, high=1.0):
    """Points with their intervals, one row each: [(name, middle, low, high, colour)] as SVG."""
    x = lambda value: 95 + 250 * (value - low) / (high - low)
    lines = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        at = x(low + tick * (high - low))
        lines.append(f'<line x1="{at}" x2="{at}" y1="6" y2="{22 * len(rows) + 8}" '
                     'stroke="var(--line)"/>')
        lines.append(tag("text", f"{low + tick * (high - low):.2f}", x=at, class_="soft",
                         y=22 * len(rows) + 22, text_anchor="middle"))
    for i, (name, middle, a, b, colour) in enumerate(rows):
        y = 22 * i + 18
        lines.append(tag("text", escape(name), x=88, y=y + 4, text_anchor="end"))
        lines.append(f'<line x1="{x(a):.1f}" x2="{x(b):.1f}" y1="{y}" y2="{y}" '
                     f'stroke="{colour}" stroke-width="5" stroke-opacity=".45"/>')
        lines.append(f'<circle cx="{x(middle):.1f}" cy="{y}" r="4.5" fill="{colour}"/>')
    return tag("svg", "".join(lines), viewBox=f"0 0 360 {22 * len(rows) + 28}", role="img")


def curves(series, unit, box=None):
    """
    Lines: {name: ([(x, y)], colour)} as SVG. box: where the axes begin and end, ((x, x), (y, y));
    without it, where the data do.
    """
    points = [point for line, _ in series.values() for point in line]
    (left, right), (low, high) = box or [(min(axis), max(axis)) for axis in zip(*points)]
    px = lambda x: 40 + 230 * (x - left) / max(1e-9, right - left)
    py = lambda y: 150 - 135 * (y - low) / max(1e-9, high - low)
    lines = [tag("text", f"{y:.2f}", x=34, y=py(y) + 4, text_anchor="end", class_="soft")
             for y in (low, high)]
    lines += [tag("text", f"{x:,}", x=f"{px(x):.0f}", y=166, text_anchor="middle", class_="soft")
              for x in (left, right)]
    lines.append(tag("text", escape(unit), x=155, y=166, text_anchor="middle", class_="soft"))
    ends = sorted((py(line[-1][1]), name, colour) for name, (line, colour) in series.items())
    below = 0
    for y, name, colour in ends:
        below = max(y + 4, below + 12)
        lines.append(f'<text x="276" y="{below:.1f}" style="fill:{colour}">{escape(name)}</text>')
    for line, colour in series.values():
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
    return tag("svg", "".join(lines), viewBox=f"0 0 360 {max(172, below + 8):.0f}", role="img")
