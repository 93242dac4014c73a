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


def card(title, inside):
    """A box with a title and HTML in it."""
    return tag("div", tag("h3", escape(title)) + inside, class_="card")


def talk(title, conversation, after=""):
    """A dialogue as a card, the human turns in bold; after: HTML below it."""
    lines = ""
    for turn in conversation:
        text = escape(turn["value"])
        if turn["from"] == "human":
            text = tag("b", text)
        lines += tag("div", text, class_=turn["from"])
    return card(title, lines + after)


# ------------------------------------------------------------------------------------------------
# the map of the town, 204 units wide: lanes in three columns, the water below them

# from how many times on a thing has the next darker colour
TOLD_LEVELS = (1, 10, 40, 160)


def symbol(is_stall, times, x, y, title):
    """A house (a square) or a stall (a circle) at a place, coloured by how often it was told of."""
    level = sum(times >= least for least in TOLD_LEVELS)
    inside = tag("title", escape(title))
    if is_stall:
        return tag("circle", inside, class_=f"told{level}", cx=f"{x:.1f}", cy=y, r=4.5)
    return tag("rect", inside, class_=f"told{level}", x=f"{x - 4.5:.1f}", y=y - 4.5, width=9,
               height=9)


def town_map(lanes, told, title):
    """
    Draw the town: houses above their lane, stalls below it.

    lanes: {lane: [(name, whether it is a stall), ...]}; told: {name: times a fact of it was told}.
    """
    rows = (len(lanes) + 2) // 3
    shore = 31 * rows
    waves = f"M0 {shore}" + "q6 -5 12 0t12 0" * 9 + "v12H0z"
    parts = [tag("title", escape(title)), tag("path", "", d=waves, class_="water")]
    for i, (lane, things) in enumerate(lanes.items()):
        left, top = 70 * (i // rows), 31 * (i % rows)
        name = tag("title", escape(lane))
        parts.append(tag("rect", name, x=left, y=top + 12, width=64, height=3, class_="street"))
        for is_stall in (False, True):
            names = sorted(name for name, of_season in things if of_season == is_stall)
            # side by side, and closer where they would not fit
            gap = min(12, 54 / max(1, len(names) - 1))
            for k, name in enumerate(names):
                times = told.get(name, 0)
                label = f"{name}, {lane}: told of {times:,} times"
                y = top + (21 if is_stall else 6)
                parts.append(symbol(is_stall, times, left + 5 + gap * k, y, label))
    return tag("svg", "".join(parts), viewBox=f"0 0 204 {shore + 10}", role="img", class_="map")


def map_legend():
    """What the shapes and colours of the map mean, as HTML."""
    keys = [((False,), 10, "a house"), ((True,), 10, "a stall"),
            ((False, True), 0, "never told of")]
    for least, above in zip(TOLD_LEVELS, (*TOLD_LEVELS[1:], None)):
        text = f"told of {least} to {above - 1} times" if above else f"{least} or more times"
        keys.append(((False, True), least, text))
    html = ""
    for shapes, times, text in keys:
        drawn = "".join(symbol(is_stall, times, 6 + 12 * i, 6, text)
                        for i, is_stall in enumerate(shapes))
        drawn = tag("svg", drawn, viewBox=f"0 0 {12 * len(shapes)} 12")
        html += tag("span", drawn + escape(text))
    return tag("div", html, class_="legend")


# ------------------------------------------------------------------------------------------------
# charts, 360 units wide


def bars(rows):
    """Draw shares, from 0 to 1, as bars with intervals: [(name, value, low, high, colour), ...]."""
    def x_of(value):
        return 92 + 226 * value

    height = 22 * len(rows)
    lines = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x = x_of(value)
        lines.append(f'<line x1="{x}" x2="{x}" y1="6" y2="{height + 8}" stroke="var(--line)"/>')
        lines.append(tag("text", f"{value:.2f}", x=x, class_="soft", y=height + 22,
                         text_anchor="middle"))
    for i, (name, value, low, high, colour) in enumerate(rows):
        y = 22 * i + 18
        width = f"{x_of(value) - x_of(0):.1f}"
        lines.append(tag("text", escape(name), x=86, y=y + 4, text_anchor="end"))
        lines.append(tag("rect", "", x=x_of(0), y=y - 7, width=width, height=14, fill=colour,
                         fill_opacity=.55))
        lines.append(f'<line x1="{x_of(low):.1f}" x2="{x_of(high):.1f}" y1="{y}" y2="{y}" '
                     'stroke="var(--ink)" stroke-width="2"/>')
        lines.append(tag("text", f"{value:.2f}", x=356, y=y + 4, text_anchor="end"))
    return tag("svg", "".join(lines), viewBox=f"0 0 360 {height + 28}", role="img")


def timeline(rows):
    """Draw stages as bars over time: [(name, begin, end), ...], in seconds from any moment on."""
    rows = sorted(rows, key=lambda row: (row[1], row[2]))
    start, stop = min(begin for _, begin, _ in rows), max(end for _, _, end in rows)

    def x_of(moment):
        return 130 + 226 * (moment - start) / max(1, stop - start)

    height = 11 * len(rows)
    lines = []
    for minute in range(0, int((stop - start) / 60) + 1, max(1, round((stop - start) / 360))):
        x = f"{x_of(start + 60 * minute):.1f}"
        lines.append(f'<line x1="{x}" x2="{x}" y1="0" y2="{height}" stroke="var(--line)"/>')
        lines.append(tag("text", f"{minute} min", x=x, y=height + 12, class_="soft small",
                         text_anchor="middle"))
    for i, (name, begin, end) in enumerate(rows):
        y = 11 * i
        lines.append(tag("text", escape(name), x=126, y=y + 8.5, class_="small", text_anchor="end"))
        length = f"{max(0.8, x_of(end) - x_of(begin)):.1f}"
        title = tag("title", f"{escape(name)}: {end - begin:.0f} s")
        lines.append(tag("rect", title, x=f"{x_of(begin):.1f}", y=y + 1.5, width=length, height=8,
                         fill="var(--a)", fill_opacity=.7))
    return tag("svg", "".join(lines), viewBox=f"0 0 372 {height + 18}", role="img", class_="wide")


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
