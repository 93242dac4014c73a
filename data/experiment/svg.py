"""
Pieces of an HTML page: elements, tables, cards of dialogues, and charts as SVG, a function each.

Texts are escaped here, unless an argument's description says that it is HTML.
"""

from html import escape

from data.measure.tables import number


# ------------------------------------------------------------------------------------------------
# elements


def tag(name, inside, **attributes):
    """Write an HTML element around `inside`, which is HTML; class_ becomes the attribute class."""
    text = name
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        text += f' {key}="{escape(str(value))}"'
    return f"<{text}>{inside}</{name}>"


def table_row(kind, values):
    """A row of a table; kind: "td" or "th"; values: texts or numbers."""
    cells = ""
    for value in values:
        text = value if isinstance(value, str) else number(value, 2)
        cells += tag(kind, escape(text))
    return tag("tr", cells)


def table(head, rows):
    """A table that scrolls sideways if it is too wide; head and rows: texts or numbers."""
    body = table_row("th", head)
    for row in rows:
        body += table_row("td", row)
    return tag("div", tag("table", body), class_="scroll")


def figure(inside, caption):
    """A chart or table (HTML) with its caption."""
    return tag("figure", inside + tag("figcaption", escape(caption)))


def talk(title, conversation, after=""):
    """A dialogue as a card, the human turns in bold; after: HTML below it."""
    lines = ""
    for turn in conversation:
        text = escape(turn["value"])
        if turn["from"] == "human":
            text = tag("b", text)
        lines += tag("div", text, class_=turn["from"])
    return tag("div", tag("h3", escape(title)) + lines + after, class_="talk")


# ------------------------------------------------------------------------------------------------
# charts, 360 units wide


def bars(rows, low=0.0, high=1.0):
    """
    Draw points with their intervals as SVG, a row each.

    rows: [(name, value, low end, high end, colour)]; low, high: where the axis begins and ends.
    """
    def x_of(value):
        return 95 + 250 * (value - low) / (high - low)

    height = 22 * len(rows)
    lines = []
    for fraction in (0, 0.25, 0.5, 0.75, 1):
        value = low + fraction * (high - low)
        x = x_of(value)
        lines.append(f'<line x1="{x}" x2="{x}" y1="6" y2="{height + 8}" stroke="var(--line)"/>')
        lines.append(tag("text", f"{value:.2f}", x=x, class_="soft", y=height + 22,
                         text_anchor="middle"))
    for i, (name, value, left, right, colour) in enumerate(rows):
        y = 22 * i + 18
        lines.append(tag("text", escape(name), x=88, y=y + 4, text_anchor="end"))
        lines.append(f'<line x1="{x_of(left):.1f}" x2="{x_of(right):.1f}" y1="{y}" y2="{y}" '
                     f'stroke="{colour}" stroke-width="5" stroke-opacity=".45"/>')
        lines.append(f'<circle cx="{x_of(value):.1f}" cy="{y}" r="4.5" fill="{colour}"/>')
    return tag("svg", "".join(lines), viewBox=f"0 0 360 {height + 28}", role="img")


def curves(series, unit, box=None):
    """
    Draw lines as SVG, with their names at the right ends.

    series: {name: ([(x, y), ...], colour)}; unit: what the horizontal axis counts; box: where the
    axes begin and end, ((left, right), (low, high)), by default where the data do.
    """
    if box is None:
        points = [point for line, _ in series.values() for point in line]
        box = [(min(axis), max(axis)) for axis in zip(*points)]
    (left, right), (low, high) = box

    def x_of(x):
        return 40 + 230 * (x - left) / max(1e-9, right - left)

    def y_of(y):
        return 150 - 135 * (y - low) / max(1e-9, high - low)

    lines = []
    for y in (low, high):
        lines.append(tag("text", f"{y:.2f}", x=34, y=y_of(y) + 4, text_anchor="end", class_="soft"))
    for x in (left, right):
        lines.append(tag("text", f"{x:,}", x=f"{x_of(x):.0f}", y=166, text_anchor="middle",
                         class_="soft"))
    lines.append(tag("text", escape(unit), x=155, y=166, text_anchor="middle", class_="soft"))
    # names from top to bottom, at least 12 units apart
    ends = sorted((y_of(line[-1][1]), name, colour) for name, (line, colour) in series.items())
    label_y = 0
    for y, name, colour in ends:
        label_y = max(y + 4, label_y + 12)
        lines.append(f'<text x="276" y="{label_y:.1f}" style="fill:{colour}">{escape(name)}</text>')
    for line, colour in series.values():
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
    return tag("svg", "".join(lines), viewBox=f"0 0 360 {max(172, label_y + 8):.0f}", role="img")
