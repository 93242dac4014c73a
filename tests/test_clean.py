"""
Cleaning: each rule by hand, MinHash against the direct comparison, shards against one run, HTML element by
element, splitting by hand and over random dialogues. Tests data/formats/clean.py, markdown.py and segments.py.
"""

import json
import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from data.formats import clean as c
from data.api.journal import Journal
from data.formats.markdown import KNOWN, is_html, to_markdown
from data.openings import openings
from data.formats.segments import authors, fastchat, spans_of, split
from data.program import UserError, to_jsonl, write_jsonl
from platolm import END_REASONS, encode, record_error, read_records
from simulate import Simulation, journal_records


def talk(*texts, id="a", **more):
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": id, "conversations": turns, **more}


SETTINGS = c.CleaningSettings(max_characters=50, per_opening=2)


def cleaned(talks, *names):
    """What is left of some dialogues after these steps, and what is dropped."""
    dropped = []
    return list(c.clean(talks, [c.Step(name, SETTINGS) for name in names], dropped.append)), dropped


def merged(*paths):
    return list(c.read_merged([str(path) for path in paths], {}, Counter()))


@pytest.mark.parametrize("rule, record, evidence", [
    ("length", talk("hi", "ho"), None), ("length", talk("hi"), "0 rounds"),
    ("length", talk("hi", "x" * 51), "51 characters in a turn"),
    ("language", talk("naïve café, “really”", "oui"), None), ("language", talk("привет", "hi"), "6 of 8 letters"),
    ("language", talk("please translate this", "привет и пока"), None), ("language", talk("12?", "!"), None),
    ("refusals", talk("can you", "As an AI language model, I"), "As an AI"),
    ("refusals", talk("can you", "I'm sorry, but I can't do that"), "I'm sorry, but I can't"),
    ("refusals", talk("can you", "i cannot assist with it"), "i cannot assist"),
    ("refusals", talk("as an AI, can you?", "sure. I'm sorry to hear that"), None),
    ("refusals", talk("say it", "x" * 300 + " I can't help"), None),
    ("short", talk("hi"), "1 turn"), ("short", talk("hi", "ho"), None), ("alone", talk("hi"), "1 turn"),
    ("blocked", talk("hi", "so I asked my ChatGPT for more of it"), "so I asked my ChatGPT for more of it"),
    ("blocked", talk("www.OpenAI.com?", "ho"), "www.OpenAI.com?"), ("blocked", talk("open AI", "chat, GPT"), None),
    ("ascii", talk("hi", "it’s ho"), "1 characters, as in '’'"), ("ascii", talk("hi", "\x7f \U0001f600"), None),
    ("ascii", talk("h\u0080", "\uffff"), "2 characters"), ("ascii", talk("hi", "I translate ñ"), "1 characters"),
    ("ascii", talk("Translating it?", "ñ"), None), ("ascii", talk("TRANSLATE ñ", "ñ"), "2 characters"),
])
def test_rules_by_hand(rule, record, evidence):
    result = c.RULES[rule](SETTINGS)(record)
    assert result is None if evidence is None else result.startswith(evidence)


def test_overlap_with_a_bench_is_shown(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text(to_jsonl({"turns": ["Describe, in the voice of a sailor, a storm at sea at night.",
                                        "Why is it so?"]}))
    rule = c.bench_rule([path], 8)
    assert rule(talk("ok", "in THE voice of a sailor - a storm, yes")) == "in the voice of a sailor a storm"
    assert rule(talk("in the voice of a sailor a sea", "no")) is None
    # a short question counts where it is the whole turn
    assert rule(talk("why is it so", "because")) == "why is it so"
    assert rule(talk("tell me why is it so", "because")) is None


def test_exact_and_near_and_openings_keep_the_first():
    rng = random.Random(0)
    words = [f"w{n}" for n in range(400)]
    base = [rng.choice(words) for _ in range(120)]
    near = base[:60] + ["changed"] + base[61:]
    other = [rng.choice(words) for _ in range(120)]
    talks = [talk(" ".join(text), "ok", id=name) for text, name in
             ((base, "a"), (base, "b"), (near, "c"), (other, "d"))]
    left, dropped = cleaned(talks, "exact", "near", "openings")
    assert [r["id"] for r in left] == ["a", "d"]
    assert [(r["id"], r["why"]) for r in dropped] == [("b", "exact"), ("c", "near")]
    assert dropped[0]["evidence"] == "as a" and dropped[1]["evidence"].endswith("as a")
    alike = [talk("Where is the green door?", text, id=text) for text in "pqrs"] + [talk("where is the red boat", "t")]
    left, dropped = cleaned(alike, "openings")
    assert [r["id"] for r in dropped] == ["r", "s"] and "1.00 as p" == dropped[0]["evidence"]


@pytest.mark.exercise(27)
def test_similar_sets_by_hand():
    """Sets of letters; a b c d shares four of five with a b c d e, which is the threshold."""
    index = c.MinHashIndex(0.8)
    for letters in ("abcde", "vwxyz", "abcd", "", "abcdefg", "abcde"):
        index.add(c.hash_set(letters))
    for letters, expected in (("abcde", [0, 2, 5]), ("abcd", [0, 2, 5]), ("abcdefg", [4]), ("vwxyz", [1]),
                              ("lmnop", []), ("", [])):
        got = index.similar(c.hash_set(letters))
        assert got == expected, f"similar to {letters!r}: expected {expected}, got {got}"
    assert len(index.sets) == 6, "to look is not to add"


@pytest.mark.exercise(27)
def test_sets_without_a_common_key_are_not_compared():
    index = c.MinHashIndex(0.0)
    for letters in ("abc", "xyz"):
        index.add(c.hash_set(letters))
    assert index.similar(c.hash_set("abc")) == [0], "even where no similarity is asked for"


@pytest.mark.exercise(27)
def test_minhash_finds_what_the_direct_comparison_finds():
    """A hundred and twenty sets, each a noisy copy of an earlier one or new."""
    rng = np.random.default_rng(0)
    sets, plain, results = [], [], []
    index = c.MinHashIndex(0.8)
    for n in range(120):
        if n % 2 and rng.random() < 0.8:
            old = sets[rng.integers(len(sets))]
            new = np.unique(np.concatenate([rng.permutation(old)[:int(len(old) * rng.uniform(0.6, 1))],
                                            rng.integers(2 ** 32, size=10, dtype=np.uint64)]))
        else:
            new = np.unique(rng.integers(2 ** 32, size=rng.integers(50, 400), dtype=np.uint64))
        numbers = set(new.tolist())
        slowly = [i for i, old in enumerate(plain) if len(old & numbers) / len(old | numbers) >= 0.8]
        plain.append(numbers)
        results.append((slowly, index.similar(new)))
        sets.append(new)
        index.add(new)
    assert sum(bool(slowly) for slowly, _ in results) > 12
    for n, (slowly, fast) in enumerate(results):
        assert slowly == fast, f"set {n} is similar to {slowly} by comparing all, to {fast} by the index"


def test_a_signature_estimates_the_jaccard():
    rng = np.random.default_rng(1)
    a = np.unique(rng.integers(2 ** 32, size=600, dtype=np.uint64))
    b = np.unique(np.concatenate([a[:300], rng.integers(2 ** 32, size=300, dtype=np.uint64)]))
    index = c.MinHashIndex(0.8)
    agree = (index.signature(a) == index.signature(b)).mean()
    assert agree == pytest.approx(c.jaccard(a, b), abs=0.12) and c.jaccard(a, a) == 1


class Counting:
    def start_dialogue(self, number, intent="", rows=()):
        user = lambda turns: f"{number} {len(turns)}"
        user.close = lambda: None
        return user


def test_shards_joined_are_the_whole_run(tmp_path):
    def simulate_shard(shard, name):
        plan, journal = list(openings(10, shard=shard)), Journal(tmp_path / f"{name}.journal", {})
        Simulation(Counting(), lambda turns: "well", journal, 2).run(plan, 3)
        write_jsonl(tmp_path / name, journal_records(journal, plan))
        journal.close()
        return str(tmp_path / name)
    whole = simulate_shard((1, 1), "whole")
    parts = [simulate_shard((i, 3), f"part{i}") for i in (2, 1, 3)]
    assert merged(*parts) == list(read_records(whole))
    with pytest.raises(UserError, match="10 ids are in these files twice, first socratic-000000"):
        merged(whole, *parts)


def test_joining_loses_nothing_whatever_the_order_and_the_ids(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write_jsonl(one, [talk("c", id="c"), talk("a", id="a"), {"conversations": talk("?")["conversations"]}])
    write_jsonl(two, [talk("b", id="b"), {"conversations": talk("!")["conversations"]}])
    assert sorted(r["id"] for r in merged(one, two)) == sorted(["a", "b", "c", f"{one}:2", f"{two}:1"])
    assert [r["id"] for r in merged(one)] == ["c", "a", "2"]
    # the authors read their first part twice, and never the second
    with pytest.raises(UserError, match="3 ids are in these files twice"):
        merged(one, one)


def test_exact_keeps_no_texts():
    rule = c.exact_rule()
    tracemalloc.start()
    for number in range(500):
        assert rule(talk("x" * 10_000, str(number), id=number)) is None
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory < 200_000 and rule(talk("x" * 10_000, "7", id="again")) == "as 7"


@pytest.fixture
def command(run_command):
    """command(*words) runs the cleaning on a command line."""
    return lambda *words: run_command(c.main, *words)


def test_as_a_command(tmp_path, command):
    path, out = tmp_path / "talks.jsonl", tmp_path / "out.jsonl"
    write_jsonl(path, [talk("hi there you", "hello", id="a"), talk("hi there you", "hello", id="b"),
                       talk("alone", id="c")])
    done = command(path, "--out", out)
    assert done.returncode == 0 and [r["id"] for r in read_records(out)] == ["a"]
    dropped = [json.loads(text) for text in (tmp_path / "out.jsonl.dropped").read_text().splitlines()]
    assert [(r["id"], r["why"]) for r in dropped] == [("b", "exact"), ("c", "length")]
    assert "exact              2        -1         0         0         1   as a\n" in done.stdout
    assert command(path, "--out", out, "--skip", "exact", "near", "length").returncode == 0
    assert len(list(read_records(out))) == 3


def test_what_goes_wrong_writes_nothing(tmp_path, command):
    path, out = tmp_path / "talks.jsonl", tmp_path / "out.jsonl"
    write_jsonl(path, [talk("hi", "ho")])
    for args in ([path, path, "--out", out], [path, "--out", path], [path, "--out", out, "--split", "authors"],
                 [path, "--out", out, "--tokenizer", tmp_path]):
        done = command(*args)
        assert done.returncode and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not out.exists() and not (tmp_path / "out.jsonl.dropped").exists() and len(list(read_records(path))) == 1


def test_the_papers_steps_as_a_command(tmp_path, tokenizer, command):
    long = talk("a bell", "the sea " * 20, "a rope", "the rope " * 20, "bye", id="long", end="left")
    huge = talk(*["the sea " * 20] * 4, id="huge")
    talks = [talk("hi", "<p>ho</p>", id="page"), talk("hi", "<p></p>", id="empty"), talk("hi", id="short"),
             talk("hi", "I am chatGPT", id="blocked"), talk("hé", "ho", id="ascii"), long, huge,
             talk("hi", "ho", id="twice"), {"id": "bad", "conversations": []}]
    path, out = tmp_path / "talks.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(map(to_jsonl, talks)))
    tokenizer.save(tmp_path / "base")
    done = command(path, "--out", out, "--paper", "--tokenizer", tmp_path / "base", "--limit", 70)
    counts = {words[0]: words[1:6] for words in map(str.split, done.stdout.splitlines())}
    assert counts["read"][0] == "8" and counts["unusable"][0] == "1"
    assert {name: counts[name] for name in c.PAPER} == {
        "html": ["8", "-1", "1", "0", "7"], "short": ["7", "-1", "0", "0", "6"],
        "blocked": ["6", "-1", "0", "0", "5"], "ascii": ["5", "-1", "0", "0", "4"],
        "split": ["4", "0", "2", "3", "7"], "alone": ["7", "-1", "0", "0", "6"],
        "exact": ["6", "-1", "0", "0", "5"]}
    assert [(r["id"], len(r["conversations"]), r.get("end")) for r in read_records(out)] == [
        ("page_0", 2, None), ("long_0", 2, "cut"), ("long_1", 3, "cut"),
        ("huge_0", 2, "cut"), ("huge_1", 3, None)]
    dropped = [(r["id"], r["why"]) for r in map(json.loads, open(f"{out}.dropped"))]
    assert sorted(dropped) == [("ascii", "ascii"), ("blocked", "blocked"), ("empty", "html"), ("huge_1", "alone"),
                               ("short", "short"), ("twice_0", "exact")]
    done = command(path, "--out", out, "--paper")
    assert done.returncode == 1 and "--tokenizer DIR, or --skip split" in done.stderr
    command(path, "--out", out, "--paper", "--skip", "split")
    assert {"long", "huge"} < {r["id"] for r in read_records(out)}
    done = command(path, "--out", out, "--paper", "--skip", "html", "ascii", "split", "--block", "bell")
    assert [r["id"] for r in read_records(out)] == ["page", "empty", "blocked", "ascii", "huge", "twice"]


# ------------------------------------------------------------------------------------------------
# splitting

H, G = "human", "gpt"


@pytest.mark.parametrize("lengths, first, limit, spans", [
    ([4] * 8, H, 17, [(0, 4), (3, 8)]),
    ([4] * 8, H, 32, [(0, 8)]), ([4, 4], H, 8, [(0, 2)]), ([], H, 4, []), ([4], G, 4, [(0, 1)]),
    # an answer that overflows belongs to its segment; what overflows last is none of its own
    ([4, 4, 4, 4], H, 14, [(0, 4)]), ([5], H, 4, []),
    # a question at the end is lost, also where it fits
    ([4, 4, 4], H, 11, [(0, 2)]), ([4, 4, 4], H, 100, [(0, 2)]), ([4], H, 100, []),
    # segments go on from the answer that they share, until the dialogue is at its end
    ([4] * 9, H, 17, [(0, 4), (3, 8)]), ([4] * 10, H, 17, [(0, 4), (3, 8), (7, 10)]),
    # gpt begins
    ([4] * 5, G, 12, [(0, 3), (2, 5)]), ([4] * 4, G, 8, [(0, 3)]),
    # a turn longer than the limit: the question after a long answer leaves it alone
    ([50, 4, 4, 4], H, 12, [(0, 2), (1, 4)]), ([4, 50, 4, 4], H, 12, [(0, 2), (1, 2), (1, 4)]),
    ([4, 50, 50, 50, 4], H, 12, [(0, 2), (1, 2), (1, 4)]), ([50, 50], H, 12, [(0, 2)]),
])
def test_the_authors_split_by_hand(lengths, first, limit, spans):
    assert authors(lengths, [(first, H if first == G else G)[i % 2] for i in range(len(lengths))], limit) == spans


@pytest.mark.parametrize("lengths, first, limit, spans", [
    ([4] * 8, H, 80, [(0, 8)]), ([4] * 8, H, 79, [(0, 6)]), ([4] * 8, H, 40, [(0, 4), (4, 8)]),
    ([4] * 8, H, 20, [(0, 2), (2, 4), (4, 6)]), ([4] * 5, H, 80, [(0, 4)]), ([4], H, 80, []), ([], H, 80, []),
    ([4] * 5, G, 80, [(1, 5)]), ([4] * 4, G, 80, [(1, 3)]), ([4], G, 80, []),
    ([99, 4, 4, 4], H, 40, [(0, 2)]), ([4, 4, 99, 4, 4, 4], H, 40, [(0, 2), (2, 4)]), ([99, 4], H, 40, []),
])
def test_fastchats_split_by_hand(lengths, first, limit, spans):
    assert fastchat(lengths, [(first, H if first == G else G)[i % 2] for i in range(len(lengths))], limit) == spans


def cut_where_more_follows(roles, spans):
    whole = {"id": "a", "end": "left", "conversations": [{"from": role, "value": "x"} for role in roles]}
    for segment, (start, end) in zip(split(whole, spans), spans):
        assert not record_error(segment) and segment["end"] == ("cut" if end < len(roles) else "left")


def test_both_splits_over_random_dialogues():
    rng = random.Random(0)
    for _ in range(3000):
        n, first, limit = rng.randint(1, 12), rng.randint(0, 1), rng.randint(5, 60)
        lengths = [rng.randint(1, 20) for _ in range(n)]
        roles = [(H, G)[(i + first) % 2] for i in range(n)]
        spans = authors(lengths, roles, limit)
        covered = set().union(*(range(*span) for span in spans))
        # all but a question at the end, and an answer that is all there is and overflows
        kept = n - (roles[-1] == H)
        assert covered == set(range(kept)) or kept == 1 and lengths[0] > limit
        for (start, end), after in zip(spans, spans[1:] + [None]):
            # too long is a segment only with an answer that it ends with; without, its human is
            # alone with what it answers
            over = sum(lengths[start:end]) > limit
            assert not over or roles[end - 1] == G and (
                sum(lengths[start:end - 1]) <= limit or end - start <= 3)
            assert after is None or after[0] == end - 1 and roles[after[0]] == G
        cut_where_more_follows(roles, spans)
        spans = fastchat(lengths, roles, limit)
        cut_where_more_follows(roles, spans)
        for start, end in spans:
            assert roles[start] == H and roles[end - 1] == G
            assert sum(lengths[start:end]) + 6 * (end - start) <= limit or end - start == 2
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:]))
        if spans:
            assert spans[0][0] == first and n - spans[-1][1] < 4


def test_segments_are_records_and_who_does_not_end_one_has_not_left(tokenizer):
    whole = talk("a", "b", "c", "d", id=7, end="left", lang="en")
    a, b = split(whole, [(0, 2), (1, 4)])
    of = {"segment_of": 7, "lang": "en"}
    assert a == of | {"id": "7_0", "end": "cut", "conversations": whole["conversations"][:2]}
    assert b == of | {"id": "7_1", "end": "left", "conversations": whole["conversations"][1:]}
    assert split(talk("a", "b"), [(0, 2)]) == [talk("a", "b", id="a_0") | {"segment_of": "a"}]
    assert split(talk("a", "b", "c"), [(0, 2)])[0]["end"] == "cut" in END_REASONS
    assert not record_error(a) and not record_error(b)
    # the authors count their label and a newline, FastChat six tokens; both a <s>
    lengths = [1 + len(tokenizer.encode(text)) for text in ("### Human: a {}\n", "### Assistant: b\n")]
    dialogue = talk("a {}", "b")
    assert spans_of(dialogue, "authors", tokenizer, sum(lengths)) == [(0, 2)]
    assert authors(lengths, [H, G], sum(lengths) - 1) == spans_of(dialogue, "authors", tokenizer, sum(lengths) - 1)
    size = 14 + len(tokenizer.encode("a {}")) + len(tokenizer.encode("b"))
    assert spans_of(dialogue, "fastchat", tokenizer, size) == [(0, 2)]
    assert spans_of(dialogue, "fastchat", tokenizer, size - 1) != [(0, 2)]


# ------------------------------------------------------------------------------------------------
# HTML

BOX = ('<pre><div class="bg-black"><div><span>python</span><button><svg w="1"><path d="M"></path></svg>Copy code'
       '</button></div><div><code class="!pre hljs">def f(x):\n    <span class="k">return</span> x &lt; 3\n</code>'
       "</div></div></pre>")


def katex(tex, more=""):
    """A formula as KaTeX writes it on a page."""
    return (f'<span class="katex"><span class="katex-mathml"><math xmlns="m"{more}><semantics><mrow><mi>x</mi></mrow>'
            f'<annotation encoding="application/x-tex">{tex}</annotation></semantics></math></span><span '
            'class="katex-html" aria-hidden="true"><span class="base"><span>x</span></span></span></span>')


@pytest.mark.parametrize("html, markdown", [
    ("<p>one\n  two</p>\n<p>three</p>", "one two\n\nthree"), ("<p>one<br>two<br/><br>three</p>", "one\ntwo\n\nthree"),
    ("<p>a <b> fat</b> <strong>one</strong>, <i>so</i> <em>so</em><b></b></p>", "a **fat** **one**, *so* *so*"),
    ("<p>use <code>a_b</code> or <code>a`b</code></p>", "use `a_b` or ``a`b``"),
    (BOX, "```python\ndef f(x):\n    return x < 3\n```"),
    ("<pre><code class='hljs language-c++'>a;\n\n\n  b;</code></pre>x", "```c++\na;\n\n  b;\n```\n\nx"),
    ("<p>so</p><pre>goCopy code<code>x\n```\n</code></pre>", "so\n\n````go\nx\n```\n````"),
    ("<pre>\nplain</pre>", "```\nplain\n```"),
    ("<ul>\n<li>a</li>\n<li>b <b>c</b></li>\n</ul>", "- a\n- b **c**"),
    ('<p>so:</p><ol start="9"><li><p>a</p></li><li>b<ul><li>c</li><li>d</li></ul></li></ol>e',
     "so:\n\n9. a\n10. b\n    - c\n    - d\n\ne"),
    ("<ul><li>a<li>b</ul>", "- a\n- b"), ("<ol start=x><li>a</li></ol><li>b</li>", "1. a\n\n- b"),
    ("<ul><li>a<pre><code>x\n\ny</code></pre></li></ul>", "- a\n\n  ```\n  x\n\n  y\n  ```"),
    ("<h1>A</h1><h6>B\nb</h6>c", "# A\n\n###### B b\n\nc"),
    ('<a href="http://x.y/?a=1&amp;b=2">here</a> <a>there</a>', "[here](http://x.y/?a=1&b=2) there"),
    ('<p><img src="s.png" alt="a cat"><img></p>', "![a cat](s.png)![]()"),
    ("<blockquote><p>a</p><p>b</p></blockquote>c", "> a\n>\n> b\n\nc"),
    ("<table><thead><tr><th>A</th><th>B</th></tr></thead><tbody>\n<tr><td>1|2</td><td><p>x</p>y</td></tr>\n</tbody>"
     "</table>", "| A | B |\n| --- | --- |\n| 1\\|2 | x y |"),
    ("<p>a</p><hr><p>b</p>", "a\n\n---\n\nb"), ("<div>a</div><div><span>b</span>c</div>", "a\nbc"),
    ("<p>1 &lt; 2 &amp;&nbsp;3 &eacute;&#33;</p>", "1 < 2 & 3 é!"),
    ("<p>a</p>\n\n\n<p></p><p>b</p>", "a\n\nb"),
    ("<p>List<int> x; <your name>, </your name> a<b> c</p> 1 < 2 <3",
     "List<int> x; <your name>, </your name> a **c**\n\n1 < 2 <3"),
    ("<script>if (a < b) alert('<p>')</script><style>p {}</style><b>x</b><!-- y -->", "**x**"),
    ("<P>a</P><SPAN>b</SPAN>", "a\n\nb"), ("<p>a</b></li></p>b</div>", "a\n\nb"),
    ("<div>2 / 3</div><p>so</p>", "so"), ("<p>so</p>Copy12 chars / 3 words", "so"),
    # KaTeX writes a formula twice; without its TeX only the second is left
    (f"<p>so {katex('x &lt; y')}, {katex('a')} b</p>", "so $x < y$, $a$ b"),
    (f"<p>so</p>{katex('x^2', ' display=%sblock%s' % (chr(34), chr(34)))}<p>b</p>", "so\n\n$$x^2$$\n\nb"),
    (f"<ul><li>{katex('x&quot;')}</li></ul>", '- $x"$'), (f"<p>{katex('x').replace('annotation', 'other')}</p>", "x"),
])
def test_html_by_hand(html, markdown):
    assert is_html(html) and to_markdown(html) == markdown


def test_markup_in_a_humans_question_is_what_they_ask_about():
    asked = '<div class="box">Hello</div> how do i centre this?'
    (record,), evidence = c.html_change(talk(asked, "<p>Use <b>flex</b>.</p>"))
    assert [turn["value"] for turn in record["conversations"]] == [asked, "Use **flex**."] and evidence


@pytest.mark.parametrize("text", [
    "if a < b and c > d: f<int>(x)  \n\n\n\n&lt; &amp;", "List<int> and <your name> </your name>",
    "<p>never closed", "",
    "Markdown:\n```html\n<p>x</p>\n```\nand `<b>y</b>`", "2 / 3", "1 / 2 is a half", "#include <a>\n\t</a.h>",
])
def test_plain_text_stays_as_it_is(text):
    assert not is_html(text) and to_markdown(text) == text


def test_what_sharegpts_page_adds_goes():
    assert to_markdown("2 / 3\n\n  and <x>?") == "and <x>?"
    assert to_markdown("so\n\nCopy123 chars / 45 words\n") == "so"
    assert to_markdown("so Copy1 chars / 1 words, he said") == "so Copy1 chars / 1 words, he said"


def test_no_rubbish_raises():
    rng = random.Random(0)
    parts = [f"<{slash}{tag}>" for tag in KNOWN.split("|") for slash in ("", "/")] + [
        "<!--", "-->", "<![", "<!", "<?", "&#", "9" * 5000, "&x", "\n", "<", ">", "'", '"', "<a href='", "<p x=",
        "<ol start=-1>", "<ol start='٣'>", "<ol start='²'>", "|", "`", "```", " ", "a", "2 / 3"]
    for _ in range(3000):
        to_markdown("".join(rng.choice(parts) for _ in range(rng.randint(1, 40))))


@pytest.mark.parametrize("words, error", [
    (["--limit", "9"], "say whose"), (["--split", "fastchat"], "say whose"), (["--block", "x"], "a step of --paper")])
def test_a_flag_that_would_do_nothing_is_refused(tmp_path, command, words, error):
    write_jsonl(tmp_path / "x", [talk("q", "a")])
    done = command(tmp_path / "x", "--out", tmp_path / "o", *words)
    assert done.returncode == 1 and error in done.stderr and not (tmp_path / "o").exists()


def test_files_that_count_alike_are_told_apart_and_nothing_usable_is_no_success(tmp_path, command):
    for name, answer in (("x", "a"), ("y", "b")):
        write_jsonl(tmp_path / name, [talk(f"{answer} {n}", "c", id=str(n)) for n in range(3)])
    words = [tmp_path / "x", tmp_path / "y", "--out", tmp_path / "o"]
    done = command(*words)
    assert done.returncode == 1 and "3 ids are in these files twice" in done.stderr and "--rename" in done.stderr
    assert not list(tmp_path.glob("o*"))
    done = command(*words, "--rename", "--skip", "near", "openings")
    assert done.returncode == 0 and len({r["id"] for r in read_records(tmp_path / "o")}) == 6, done.stderr
    (tmp_path / "x").write_text(to_jsonl({"conversations": []}))
    done = command(tmp_path / "x", "--out", tmp_path / "p")
    assert done.returncode == 1 and "no dialogue that can be used" in done.stderr and not (tmp_path / "p").exists()


def test_an_answer_that_was_cut_is_read_and_not_learnt(tmp_path, tokenizer, run_command):
    said = [{"from": "human", "value": "who mends clocks?"}, {"from": "gpt", "value": "ada mends", "finish": "length"},
            {"from": "human", "value": "and?"}, {"from": "gpt", "value": "yes."}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"id": "a", "conversations": said}) + "\n")
    done = run_command(c.main, tmp_path / "talks.jsonl", "--out", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    conversation = json.loads((tmp_path / "out.jsonl").read_text())["conversations"]
    assert [turn.get("weight") for turn in conversation] == [None, 0, None, None]
    ids, mask = encode(conversation, tokenizer, "gpt")
    assert tokenizer.decode([token for token, counts in zip(ids, mask) if counts]).strip() == "yes."
