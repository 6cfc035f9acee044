"""The report: whole, self-contained, escaped, and true to the tables."""

import base64
import gzip
import hashlib
import html
import html.parser
import io
import re

import pandas as pd
import pytest
import yaml
from conftest import fill_defaults, load_config
from figure_tables import NAMES, make_rows, through_parquet
from report_rows import HOSTILE, claim, verdict
from study_tables import table, variants
from valleys import figures
from valleys.config import captions
from valleys.report import html_tables, rulegraph, sections
from valleys.report.page import SCRIPT, STYLE, figure_spec, render
from valleys.results.measures import LEFT_OUT
from valleys.results.stats import mean_interval
from valleys.storage import tables

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="504pt" height="252pt"><text>{}</text></svg>'


NAN = float("nan")
OTHER = {
    "claim": "exists",
    "experiment": 1,
    "statement": "there is a direction",
    "unit": "share",
    "note": "no data",
}
CLAIMS = [
    claim(number=8),
    claim(
        number=8,
        decides=True,
        scope="digits/cnn/quick",
        verdict="refuted",
        effect=-0.5,
        low=-0.75,
        high=-0.25,
        note="one diverged",
    ),
    claim(**OTHER, number=1, verdict="inconclusive", effect=NAN, low=NAN, high=NAN, n=0, p_value=None),
]
OPEN = {"verdict": "not decidable", "effect": "", "n": 0, "p_value": None, "p_adjusted": None}
TWELVE = [verdict(n, **(OPEN if n == 1 else {})) for n in range(1, 13)]


class Page(html.parser.HTMLParser):
    """Tags with attributes, visible text, and whether tags are balanced."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.stack = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style", "script", "title"):
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def config():
    filled = fill_defaults(load_config("config/smoke.yaml"))
    return {k: v for k, v in filled.items() if k not in ("figures", "execution")}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    return through_parquet(
        tmp_path_factory.mktemp("tables"), make_rows() | {"claims": CLAIMS, "verdicts": TWELVE}
    )


@pytest.fixture
def pictures():
    return {name: SVG.format(name) for name in NAMES}


@pytest.fixture(scope="module")
def page(frames, config):
    pictures = {name: SVG.format(name) for name in NAMES}
    return render(frames, pictures, config, {"valleys": "0.1.0", "torch": "2.9.1"})


@pytest.mark.slow
def test_is_whole(page):
    parsed = Page(page)
    assert parsed.stack == []
    assert parsed.tags[0][0] == "html"
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in parsed.tags if tag == "a" and "download" not in attrs]
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_asks_for_nothing(page):
    bare = page.replace(SCRIPT.read_text(), "").replace("http://www.w3.org/2000/svg", "")
    for tag, attrs in Page(page).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for key in ("src", "href", "srcset", "poster", "action", "data", "style", "background"):
            assert (attrs.get(key) or "#").startswith(("#", "data:"))
        assert not any(key.startswith("on") for key in attrs)
    assert "@import" not in page
    assert set(re.findall(r"url\([^)]*\)", page)) <= {"url(#arrow)"}
    assert not re.search(r"https?://", bare)
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "import(", "eval(", "innerHTML"):
        assert word not in SCRIPT.read_text()


def test_policy_allows_its_own_script_and_style_alone(page):
    found = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    policy = dict(part.split(" ", 1) for part in html.unescape(found[0]).split("; "))
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_pictures_are_embedded_in_order(page, pictures):
    images = [attrs for tag, attrs in Page(page).tags if tag == "img"]
    found = [base64.b64decode(image["src"].split(",", 1)[1]).decode() for image in images]
    assert sorted(found) == sorted(pictures.values())
    numbers = [int(n) for n in re.findall(r'<figure id="figure-(\d+)"', page)]
    assert numbers == list(range(1, len(pictures) + 1))
    # Those of networks by claim, the claim's own figure first; then those of simulations.
    at = {name: found.index(svg) for name, svg in pictures.items()}
    order = ("training", "prevalence", "curves-uniform", "theory-measured", "shift", "line-swa-descent")
    order += ("plane-solutions", "toy-angles", "toy-surface", "theory-average", "theory-gain")
    assert [name for name in sorted(at, key=at.get) if name in order] == [n for n in order if n in at]
    assert {(image["width"], image["height"]) for image in images} == {("672", "336")}
    assert all(image["alt"] for image in images)


def test_text_of_figures_is_in_the_font_of_the_page(frames, config, tmp_path):
    svgs = {}
    for font in ("sans-serif", "serif"):
        style = {"font": font, "dpi": 60}
        figure = figures.draw("training", frames, {**figure_spec(config), "style": style})
        figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", style)
        page = render(frames, {"training": (tmp_path / "a.svg").read_text()}, config, tables.versions())
        (image,) = (attrs for tag, attrs in Page(page).tags if tag == "img")
        svgs[font] = base64.b64decode(image["src"].split(",", 1)[1]).decode()
    families = {font: set(re.findall(r'font-family: ([^;"]+)', svg)) for font, svg in svgs.items()}
    (css,) = re.findall(r"^  font: \S+ (.*);$", STYLE.read_text(), re.M)
    assert families["sans-serif"] == {css.replace('"', "'")}
    (chosen,) = families["serif"]
    assert chosen.startswith("'STIXGeneral'")
    assert chosen.endswith(", serif")


def test_captions_are_those_of_the_figures(page, frames, config):
    words = Page(page).words()
    for name in NAMES:
        said = figures.caption(name, frames, figure_spec(config))
        assert " ".join(said.split()) in words
        assert figures.title(name) in words


def test_figure_spec_is_the_figures_own(experiment_config):
    from valleys.config.experiment import Experiment
    from valleys.config.params import Params

    own = {key: next(iter(experiment_config[f"{key}s"])) for key in ("dataset", "model", "recipe")}
    experiment_config["studies"] = {
        name: own | {"factors": {"recipe.weight_decay": levels}} for name, levels in STUDIES.items()
    }
    experiment = Experiment(fill_defaults(experiment_config))
    for name in ("training", "study-decay", "study-other"):
        drawn = {k: v for k, v in Params(experiment).figure(name).items() if k not in ("style", "version")}
        told = figure_spec(experiment.config)
        study = name.removeprefix("study-")
        order = {"factors": {study: told["factors"][study]}} if study in STUDIES else {}
        assert drawn == {k: v for k, v in told.items() if k not in ("style", "factors")} | order
        assert order == ({"factors": {study: {"recipe.weight_decay": STUDIES[study]}}} if order else {})
    assert Params(experiment).claims()["claims"]["factors"] == told["factors"]


STUDIES = {"decay": [0, 0.5], "other": [0.25, 0]}


def test_studies_have_meanings_and_captions(frames, config, pictures):
    parts = {name: variants([({"recipe.weight_decay": v}, 1.0) for v in STUDIES[name]]) for name in STUDIES}
    more = {name: table(rows).drop(columns="study") for name, rows in parts.items()}
    kinds = dict.fromkeys(more, "study") | {"decay_lines": "interpolation"}
    more["decay_lines"] = frames["interpolation"].assign(model="of-the-study")
    pictures = pictures | {"study-decay": SVG.format("study")}
    page = render(frames | more, pictures, config, {}, kinds)
    words = Page(page).words()
    assert "Study: decay" in words
    assert "weight decay, uniform-far: 0 1 (1 to 1), 0 of 12 asymmetric; 0.5 1 (1 to 1)" in words
    meaning = next(c["meaning"] for c in tables.declared()["study"]["columns"] if c["name"] == "penalty")
    assert page.count(f'title="{html.escape(meaning)}"') == len(STUDIES)
    assert "tables/decay_lines.parquet" in page
    # The line's caption tells of the study's cells, as its figure shows them.
    assert "of-the-study" in words[: words.index("tables/decay_lines.parquet")]


def test_claims(page):
    body = page[page.index('<h2 id="claim-1">') : page.index('<h2 id="simulations">')]
    words = Page(body).words()
    assert body.count('<tr class="verdict') == len(CLAIMS)
    for row in CLAIMS:
        for key in ("scope", "verdict", "measure", "test", "rule", "note", "unit", "claim"):
            assert row[key] in words, key
        assert row["statement"][1:] in words
    assert "0.25 nats 0.125 to 0.375 6 0.031" in words
    assert "−0.5 nats −0.75 to −0.25 6 0.031 note: one diverged" in words
    assert "– share – 0 –" in words
    assert words.index("There is a direction") < words.index("Swa is above descent")  # by claim
    assert words.index("digits/cnn/quick decides") < words.index(
        "digits/mlp/quick 0.25 nats"
    )  # which decides first
    assert words.count("exact sign test") == 2  # said once for a claim, whatever the number of cells
    rows = page[page.index('<h2 id="all">') : page.index('<h2 id="tables">')]
    assert (
        "Verdict supported refuted inconclusive Order" in Page(rows).words()
    )  # claims are counted, not rows
    assert rows.count('<tr class="verdict"') == len(CLAIMS)
    assert (
        "refuted Swa is above descent digits/cnn/quick −0.5 nats −0.75 to −0.25 6 0.031 8"
        in Page(rows).words()
    )


def test_twelve_verdicts_come_first(page):
    top = page[page.index('<h2 id="claims"') : page.index('<h2 id="networks">')]
    words = Page(top).words()
    assert top.count('<tr class="verdict"') == 12
    assert words.startswith("Claims 11 supported 1 not decidable")
    assert "1 not decidable Statement 1 No data of this size could decide it no figure" in words
    assert "2 supported Statement 2 +0.25 [+0.125, +0.375] nats, n = 12, adjusted p 0.012 Figure 2" in words
    assert '<span class="badge not-decidable">not decidable</span>' in top
    assert re.findall(r'<a href="#([^"]*)">Statement', top) == [f"claim-{n}" for n in range(1, 13)]
    parts = ("networks", "about", *(f"claim-{n}" for n in range(1, 13)), "other", "simulations", "all")
    order = [page.index(f'<h2 id="{part}">') for part in (*parts, "tables", "rules", "config")]
    assert order == sorted(order)


def test_each_claim_leads_to_its_one_figure(page, pictures):
    found = dict(re.findall(r'<figure id="(figure-\d+)" data-name="([^"]*)"', page))
    top = page[page.index('<h2 id="claims"') : page.index('<h2 id="networks">')]
    own = {}
    for row in re.findall(r'<tr class="verdict".*?</tr>', top, re.S):
        number = int(re.search(r'<td class="number">(\d+)<', row)[1])
        own[number] = [found[link] for link in re.findall(r'href="#(figure-\d+)"', row)]
    assert all(len(names) <= 1 for names in own.values())
    assert {number: names[0] for number, names in own.items() if names} == {
        2: "prevalence", 3: "toy-angles", 6: "theory-average", 7: "theory-measured", 8: "line-swa-descent",
    }  # fmt: skip
    # Without simulations the claims that also rest on them lead to figures of networks.
    kept = {name: svg for name, svg in pictures.items() if not captions.is_simulated(name)}
    assert sections.FIRST[6][1] in kept


def test_networks_come_before_claims_and_simulations_last(page, frames):
    networks = page[page.index('<h2 id="networks">') : page.index('<h2 id="about">')]
    assert re.findall(r'<h3 id="([^"]*)"', networks) == ["solutions", "directions", "by-network"]
    assert 'data-name="training"' in networks
    assert "digits / mlp / quick 1 ? 8 ✓" in Page(networks).words()
    after = page[page.index('<h2 id="simulations">') : page.index('<h2 id="all">')]
    names = set(re.findall(r'data-name="([^"]*)"', page))
    assert set(re.findall(r'data-name="([^"]*)"', after)) == set(filter(captions.is_simulated, names))


def test_a_claim_s_effect_is_short_with_a_true_minus_sign(frames, config):
    row = verdict(1, effect="-0.5 [-0.75, -2.5e-08] log ratio (a-1, digits/mlp)")
    page = render(frames | {"verdicts": pd.DataFrame([row])}, {}, config, {})
    assert "−0.5 [−0.75, −2.5e−08] log ratio, n = 12, adjusted p 0.012" in Page(page).words()
    assert "-0.5 [-0.75, -2.5e-08] log ratio (a-1, digits/mlp), n = 12" in Page(page).words()


def test_marks_of_a_network_are_those_of_the_rows_that_decide(frames):
    scope = "digits/mlp/quick"
    rows = [claim(number=1, scope=f"{scope}/p{i}", verdict=v) for i, v in enumerate(sections.VERDICTS)]
    rows += [claim(number=2, scope=scope, verdict="refuted", decides=True), claim(number=2, scope=scope)]
    rows += [claim(number=3, scope=f"{scope}er"), claim(number=0, scope=scope)]
    rows += [claim(number=4, scope=f"{scope}/x", verdict=v) for v in ("inconclusive", "inconclusive")]
    claims = pd.DataFrame(rows)
    _, found = sections.sections(claims, pd.DataFrame(), {}, {}, frames, {})
    (one,) = sections.networks(claims, frames["solutions"], found)
    assert one["setting"] == "digits / mlp / quick"
    assert [(mark["number"], mark["mark"]) for mark in one["marks"]] == [(1, "≠"), (2, "✗"), (4, "?")]


def test_rows_of_simulations_stand_apart(frames, config):
    rows = [
        claim(number=6, scope="digits/mlp/quick", decides=True),
        claim(number=6, scope="simulation/linear"),
    ]
    page = render(frames | {"claims": pd.DataFrame(rows)}, {}, config, {})
    at = page.index('<h2 id="simulations">')
    assert "simulation/linear" not in page[page.index('<h2 id="claim-6">') : at]
    apart = page[at : page.index('<h2 id="all">')]
    assert "simulation/linear" in apart
    assert "1 row that decides nothing" in Page(apart).words()
    assert "Its simulations stand further down ." in Page(page).words()


def test_without_simulations_the_page_says_so(frames, config):
    kept = {
        name: table for name, table in frames.items() if not name.startswith(("toy", "theory_av", "theory_g"))
    }
    told = [row | ({"note": LEFT_OUT} if row["number"] in (3, 6, 7) else {}) for row in TWELVE]
    pictures = {name: SVG.format(name) for name in NAMES if not captions.is_simulated(name)}
    kept |= {"verdicts": pd.DataFrame(told)}
    page = render(kept, pictures, {**config, "simulations": False}, {})
    top = page[page.index('<h2 id="claims"') : page.index('<h2 id="networks">')]
    assert top.count("were left out (<code>simulations: false</code>)") == 3
    words = Page(page).words()
    assert "They were left out: the config has simulations: false ." in words
    figures_of = dict(
        re.findall(r'<td class="number">(\d+)</td>.*?(?:href="#figure-(\d+)"|no figure)', top, re.S)
    )
    name = dict(re.findall(r'<figure id="figure-(\d+)" data-name="([^"]*)"', page))
    assert name[figures_of["6"]] == "line-swa-descent"


def test_rows_of_no_claim_and_figures_of_studies(frames, config):
    rows = pd.DataFrame([claim(scope="other/x"), claim(scope="decay/x", number=8)])
    decides = pd.DataFrame([claim(scope="decay/y", number=4, decides=True)])
    pictures = {"study-decay": SVG.format("study")}
    study = table(variants([({"recipe.weight_decay": v}, 1.0) for v in STUDIES["decay"]]))
    more = {"claims": pd.concat([rows, decides]), "decay": study.drop(columns="study")}
    page = render(frames | more, pictures, config, {}, {"decay": "study"})
    at = page.index('<figure id="figure-1"')
    assert page.index('<h2 id="claim-4">') < at < page.index('<h2 id="claim-5">')
    assert "other/x" in page[page.index('<h2 id="other">') : page.index('<h2 id="all">')]


@pytest.mark.parametrize("missing", [True, False])
def test_no_claims(frames, pictures, config, missing):
    frames = frames | {name: frames[name].iloc[:0] for name in ("claims", "verdicts")}
    if missing:
        del frames["claims"], frames["verdicts"]
    words = Page(render(frames, pictures, config, {})).words()
    assert "No claim was judged" in words


def test_no_rows_at_all(tmp_path, pictures, config):
    frames = through_parquet(tmp_path, {name: [] for name in tables.declared()})
    words = Page(render(frames, pictures, config, {})).words()
    assert words.count("Nothing to draw") == len(NAMES)
    assert "training 0 rows" in words


def test_data_are_described(frames, config):
    """How many images and classes, whether all seeds have the same, and how many labels are wrong."""
    rows = frames["solutions"].assign(n_train=800, n_test=1997, classes=10)
    words = Page(render(frames | {"solutions": rows}, {}, config, {})).words()
    assert (
        "digits: 800 train and 1,997 test images, 10 classes, the same split for all seeds, "
        "no label made wrong."
    ) in words
    own = {**config, "datasets": {"digits": {**config["datasets"]["digits"], "split": "by_seed"}}}
    words = Page(render(frames | {"solutions": rows.assign(wrong_labels=80)}, {}, own, {})).words()
    assert (
        "digits: 800 train and 1,997 test images, 10 classes, cut into the two anew for each seed, "
        "80 train labels of each seed made wrong (10 %)."
    ) in words


def test_summary_of_solutions(page):
    # Test loss of sgd: 0.2 + seed / 10 over seeds 0, 1, 2.
    i = mean_interval([0.2, 0.3, 0.4])
    assert (
        f"digits mlp quick sgd 3 0.1 ± 0 {i.estimate:.2f} ± {(i.high - i.low) / 2:.2f} 90 ± 0"
        in Page(page).words()
    )


def test_summary_of_prevalence(page):
    assert "digits mlp quick uniform sgd 12 50.0 (25.4 to 74.6) 0 4 – 6 3 3 0 0" in Page(page).words()


def test_previews(page, frames):
    words = Page(page).words()
    for name, frame in frames.items():
        assert f"results/smoke/tables/{name}.parquet" in words
        assert f"{name} {len(frame):,} row" in words
    shown = html_tables.PREVIEW_ROWS
    assert f"First {shown} of {len(frames['curves'])} rows" in words
    body = page[page.index("<code>curves</code>") :]
    assert body[: body.index("</table>")].count("<tr>") == 1 + shown
    assert "c0ffeec0ffee…" in words
    assert 'title="mean loss on the fixed, un-augmented train images [nats]"' in page


def test_tables_can_be_saved(tmp_path, frames, config):
    path = tmp_path / "training.parquet"
    tables.write(path, "training", make_rows()["training"])
    data = {
        "training": path.read_bytes(),
        "curves": b"x" * (html_tables.CSV_LIMIT + 1),
        "solutions": b"y" * 9,
        "claims": b"z" * 9,
    }
    page = render(frames, {}, config, {}, parquet=data)
    links = [attrs for tag, attrs in Page(page).tags if tag == "a" and "download" in attrs]
    found = {a["download"]: base64.b64decode(a["href"].split(",", 1)[1]) for a in links}
    assert set(found) == {"training.csv.gz", "solutions.csv.gz", "claims.csv.gz", "claims.parquet"}
    assert found["claims.parquet"] == data["claims"]
    text = gzip.decompress(found["training.csv.gz"]).decode()
    back = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(back, frames["training"], check_dtype=False, check_exact=True)
    # What is too large is named, with its size.
    assert "tables/curves.parquet (100 kB)" in Page(page).words()


def test_graph_of_rules(frames, config):
    graph = rulegraph.RuleGraph({"a": 1, "b": 1200}, [("a", "b")], {"a": 0, "b": 1})
    words = Page(render(frames, {}, config, {}, graph=graph)).words()
    assert "a 1 job b 1,200 jobs" in words
    assert "Dashed" not in words
    words = Page(render(frames, {}, config, {})).words()
    assert "The graph of rules is not here" in words


def test_config_and_versions(page, config):
    text = page[page.index("<pre") : page.index("</pre>")]
    assert yaml.safe_load(html.unescape(text[text.index(">") + 1 :])) == config
    assert "torch 2.9.1" in Page(page).words()


@pytest.mark.slow
def test_escapes_hostile_names(tmp_path, pictures, config):
    rows = make_rows([(HOSTILE, HOSTILE, HOSTILE)], probes=("uniform", HOSTILE))
    texts = ("claim", "scope", "statement", "verdict", "measure", "unit", "test", "rule", "note")
    evil = dict.fromkeys(texts, HOSTILE)
    frames = through_parquet(
        tmp_path, rows | {"claims": [claim(**evil), claim(**evil | {"note": HOSTILE * 2})]}
    )
    frames[HOSTILE] = frames["claims"]
    config = config | {"name": HOSTILE}
    pictures[f"curves-{HOSTILE}"] = SVG.format(HOSTILE)
    graph = rulegraph.RuleGraph({HOSTILE: 1}, [], {HOSTILE: 0})
    page = render(frames, pictures, config, {HOSTILE: HOSTILE}, parquet={HOSTILE: b"x"}, graph=graph)
    assert page.lower().count("<script") == 1  # the page's own, which its policy names
    assert 'class="badge"' in page  # an unknown verdict gets no class of its own
    assert HOSTILE in Page(page).words()


def test_same_bytes(frames, pictures, config, page):
    assert render(frames, pictures, config, {"valleys": "0.1.0", "torch": "2.9.1"}) == page


def test_schemes_and_widths(page):
    for needed in ("color-scheme: light dark", "@media print", 'name="viewport"', "overflow-x: auto"):
        assert needed in page
    # Every table but the first can be wider than the page, so each sits in a box that scrolls by itself.
    assert len(re.findall(r'<div class="scroll[^>]*>\s*<table', page)) == page.count("<table") - 1
