"""The report in a real browser: it complains of nothing, asks for nothing, and its controls work."""

import re

import pandas as pd
import pytest
from browser import CHROMIUM, browser
from conftest import fill_defaults, load_config
from figure_tables import make_rows, through_parquet
from report_rows import HOSTILE, claim, verdict
from valleys import figures
from valleys.report import rulegraph
from valleys.report.page import FIRST_CLAIMS, figure_spec, render
from valleys.results.measures import LEFT_OUT
from valleys.storage import tables

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"
)

NAMES = ("training", "prevalence", "shift")
VERDICTS = ("supported", "refuted", "inconclusive")
CLAIMS = [
    claim(
        claim=f"claim_{i % 7}", statement=f"statement {i % 7}", number=1 + i % 4, scope=f"digits/net-{i}",
        verdict=VERDICTS[i % 3], effect=(-1.5) ** i if i % 10 else float("nan"), low=-1.0 * i,
        high=1e300 if i % 5 else float("inf"), n=i, p_value=None if i % 2 else 10.0**-i,
    )
    for i in range(60)
]  # fmt: skip
# As long as those of the paper, with notes on three that their simulations were left out.
TWELVE = [
    verdict(
        n,
        statement=f"statement {n} " + "a bias to the flat side gains more than in a symmetric valley",
        effect="+0.00331 [+0.00192, +0.00469] log ratio per share (a_claim, all settings/searched)",
        note=LEFT_OUT if n in (3, 6, 7) else "",
    )
    for n in range(1, 13)
]
EVIL = f"{HOSTILE}<img src=x onerror=alert(1)>\"'</style></script>&amp;"


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A browser on a report with 60 claims and real figures, and the report's folder."""
    folder = tmp_path_factory.mktemp("report")
    config = fill_defaults(load_config("config/smoke.yaml"))
    config = {k: v for k, v in config.items() if k not in ("figures", "execution")}
    rows = make_rows() | {"claims": CLAIMS, "verdicts": TWELVE}
    frames = through_parquet(folder, rows)
    spec = figure_spec(config)
    pictures, pngs = {}, {}
    for name in NAMES:
        figures.save(figures.draw(name, frames, spec), folder / "f.png", folder / "f.svg", {})
        pictures[name] = (folder / "f.svg").read_text(encoding="utf-8")
        pngs[name] = (folder / "f.png").read_bytes()
    (folder / "shift.svg").write_text(pictures["shift"], encoding="utf-8")
    parquet = {}
    for name in ("claims", "training"):
        tables.write(folder / "t.parquet", name, rows[name])
        parquet[name] = (folder / "t.parquet").read_bytes()
    graph = rulegraph.RuleGraph({"train": 2, "report": 1}, [("train", "report")], {"train": 0, "report": 1})
    page = render(frames, pictures, config, tables.versions(), parquet=parquet, graph=graph, pngs=pngs)
    (folder / "report.html").write_text(page, encoding="utf-8")
    with browser() as opened:
        opened.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "saved"))
        yield opened, folder


@pytest.fixture
def page(shown):
    """The report as it is when opened."""
    opened, folder = shown
    opened.complaints.clear()
    opened.requests.clear()
    opened.size(1000, 800)
    opened.media()
    opened.open(folder / "report.html")
    yield opened
    assert opened.complaints == []
    outside = [u for u in opened.requests if not u.startswith(("data:", "blob:"))]
    assert outside == [(folder / "report.html").as_uri()]


def rows_of(page, table, columns):
    """Texts of the shown rows of a table."""
    cells = ", ".join(f"r.cells[{i}].innerText.trim()" for i in columns)
    return page.run(
        f"[...document.querySelectorAll('{table} tbody tr')].filter(r => r.checkVisibility())"
        f".map(r => [{cells}])"
    )


def saved(page, folder, click, name):
    """Bytes of the file that a click saves."""
    path = folder / "saved" / name
    path.unlink(missing_ok=True)
    page.run(click)
    for _ in range(200):
        page.run("new Promise(done => setTimeout(done, 50))")
        if path.exists() and path.stat().st_size and not list(path.parent.glob("*.crdownload")):
            return path.read_bytes()
    raise AssertionError(f"{name} was not saved; there is {list(path.parent.glob('*'))}")


@pytest.mark.slow
def test_pictures_are_seen(page):
    sizes = page.run(
        "Promise.all([...document.querySelectorAll('figure img')]"
        ".map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) == len(NAMES)
    assert min(sizes) > 300


def test_claims_are_those_of_the_table(page):
    page.run("document.querySelector('.found button').click()")
    found = page.run(
        "[...document.querySelectorAll('#all-claims tbody tr')].map(r => [r.dataset.claim, "
        "r.querySelector('.scope').innerText, r.dataset.verdict, r.cells[0].innerText, "
        "r.cells[2].dataset.sort, r.cells[3].dataset.sort, r.cells[4].innerText, r.cells[5].dataset.sort, "
        "r.cells[6].innerText])"
    )
    wanted = [
        [
            row["claim"], row["scope"], row["verdict"], row["verdict"],
            "" if row["effect"] != row["effect"] else repr(row["effect"]), repr(row["low"]), str(row["n"]),
            "" if row["p_value"] is None else repr(row["p_value"]), str(row["number"]),
        ]
        for row in CLAIMS
    ]  # fmt: skip
    assert sorted(found) == sorted(wanted)
    assert len(rows_of(page, "#all-claims", [0])) == len(CLAIMS)


def test_first_claims_then_all(page):
    first = rows_of(page, "#all-claims", [1])
    assert len(first) == FIRST_CLAIMS
    status = "document.querySelector('.found span').innerText"
    assert page.run(status) == f"{FIRST_CLAIMS} of {len(CLAIMS)} rows shown."
    page.run("document.querySelector('.found button').click()")
    assert page.run(status) == f"{len(CLAIMS)} of {len(CLAIMS)} rows shown."
    page.run("document.querySelector('.found button').click()")
    assert rows_of(page, "#all-claims", [1]) == first


def fill(page, name, value):
    page.run(
        f"(e => {{ e.value = {value!r}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        f"(document.querySelector('.filter').elements[{name!r}])"
    )


def test_filter_by_experiment_verdict_and_words(page):
    page.run("document.querySelector('.found button').click()")
    fill(page, "number", "2")
    wanted = {row["scope"] for row in CLAIMS if row["number"] == 2}
    assert {text.split()[-1] for (text,) in rows_of(page, "#all-claims", [1])} == wanted
    page.run("document.querySelector('.filter input[value=inconclusive]').click()")
    page.run("document.querySelector('.filter input[value=refuted]').click()")
    wanted = {r["scope"] for r in CLAIMS if r["number"] == 2 and r["verdict"] == "supported"}
    assert {text.split()[-1] for (text,) in rows_of(page, "#all-claims", [1])} == wanted
    fill(page, "search", "NET-21 claim_0")
    assert rows_of(page, "#all-claims", [0, 4]) == [["supported", "21"]]
    fill(page, "search", "nothing such")
    assert rows_of(page, "#all-claims", [0]) == []
    page.run("document.querySelector('.filter button[type=reset]').click()")
    page.until("document.querySelectorAll('#all-claims tbody tr:not([hidden])').length > 0")
    assert len(rows_of(page, "#all-claims", [0])) == FIRST_CLAIMS


@pytest.mark.parametrize(("column", "key"), [(2, "effect"), (3, "low"), (5, "p_value"), (4, "n")])
def test_sorting(page, column, key):
    page.run("document.querySelector('.found button').click()")
    before = rows_of(page, "#all-claims", [1])
    head = f"document.querySelectorAll('#all-claims th')[{column}]"
    states = []
    for down in (False, True):
        page.run(f"{head}.querySelector('button').click()")
        states.append(page.run(f"{head}.getAttribute('aria-sort')"))
        scopes = [text.split()[-1] for (text,) in rows_of(page, "#all-claims", [1])]
        by = {row["scope"]: row[key] for row in CLAIMS}
        values = [by[scope] for scope in scopes if by[scope] is not None and by[scope] == by[scope]]
        assert len(scopes) == len(CLAIMS)
        assert values == sorted(values, reverse=down)
        assert [by[scope] for scope in scopes[: len(values)]] == values  # those without come last
    assert states == ["ascending", "descending"]
    page.run(f"{head}.querySelector('button').click()")
    assert page.run(f"{head}.getAttribute('aria-sort')") == "none"
    assert rows_of(page, "#all-claims", [1]) == before


def press(page, key, **more):
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, **more)


def test_sorting_by_keyboard(page):
    page.run("document.querySelector('#summary-1 th button').focus()")
    press(page, "Enter", text="\r", windowsVirtualKeyCode=13)
    assert page.run("document.querySelector('#summary-1 th').getAttribute('aria-sort')") == "ascending"
    press(page, "Tab", windowsVirtualKeyCode=9)
    assert page.run("document.activeElement.closest('th').cellIndex") == 1


def test_zoom(page):
    page.run("document.querySelector('figure .open').click()")
    page.until("document.querySelector('.zoom img').style.width")
    width = "document.querySelector('.zoom img').getBoundingClientRect().width"
    assert page.run("document.querySelector('dialog').open")
    fitted = page.run(width)
    assert 0 < fitted <= page.run("document.querySelector('.zoom .view').clientWidth") + 1
    press(page, "+", text="+")
    assert page.run(width) == pytest.approx(1.3 * fitted, abs=2)
    page.run("document.querySelector('[data-zoom=in]').click()")
    assert page.run(width) == pytest.approx(1.69 * fitted, abs=3)
    page.run("document.querySelector('[data-zoom=fit]').click()")
    assert page.run(width) == fitted
    press(page, "Escape", windowsVirtualKeyCode=27)
    assert not page.run("document.querySelector('dialog').open")


def test_downloads(page, shown):
    folder = shown[1]
    svg = saved(page, folder, "document.querySelector('[data-name=shift] .svg').click()", "shift.svg")
    assert svg == (folder / "shift.svg").read_bytes()
    png = saved(page, folder, "document.querySelector('[data-name=shift] .png').click()", "shift.png")
    assert png.startswith(b"\x89PNG")
    width = page.run("Number(document.querySelector('[data-name=shift] img').getAttribute('width'))")
    assert int.from_bytes(png[16:20], "big") == pytest.approx(width * 300 / 96, abs=2)
    click = "document.querySelector('a[download=\"{}\"]').click()"
    parquet = saved(page, folder, click.format("claims.parquet"), "claims.parquet")
    (folder / "again.parquet").write_bytes(parquet)
    assert tables.read(folder / "again.parquet", "claims").num_rows == len(CLAIMS)
    saved(page, folder, click.format("claims.csv.gz"), "claims.csv")
    again = pd.read_csv(folder / "saved" / "claims.csv")
    assert again["scope"].tolist() == [row["scope"] for row in CLAIMS]
    saved(page, folder, "document.querySelector('[data-csv-of]').click()", "solutions.csv")
    shown_rows = rows_of(page, "#summary-1", range(13))
    assert pd.read_csv(folder / "saved" / "solutions.csv", dtype=str).to_numpy().tolist() == shown_rows


def test_the_first_screen_has_the_twelve_claims_and_the_second_a_figure(page):
    assert page.run("document.querySelectorAll('#twelve tbody tr').length") == 12
    bottom = "document.querySelector('#twelve tbody tr:last-child').getBoundingClientRect().bottom"
    assert page.run(bottom) <= 800
    top = page.run("document.querySelector('figure img').getBoundingClientRect().top")
    assert 800 < top < 1600 - 100
    # A click on a claim's figure shows it.
    page.run("document.querySelector('#twelve a[href^=\"#figure\"]').click()")
    page.until("Math.abs(document.querySelector(location.hash).getBoundingClientRect().top) < 100")


@pytest.mark.parametrize("width", [320, 400])
def test_nothing_is_cut_off_on_a_small_screen(page, width):
    page.size(width, 800, mobile=True)
    page.run("document.querySelectorAll('details.beside').forEach(d => { d.open = true })")
    # All but previews of tables and the config, which are folded and scroll.
    wide = page.run(
        "[...document.querySelectorAll('main *')].filter(e => e.checkVisibility()"
        " && !e.closest('.unseen, thead, .preview, pre, dialog')"
        " && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML)"
    )
    assert wide == []
    inner = page.run(
        "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility() && !e.closest('.preview')"
        " && e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    )
    assert inner == []


def test_a_figure_is_opened_large_enough_to_read(page):
    page.size(400, 800, mobile=True)
    page.run("document.querySelector('figure img').click()")
    page.until("document.querySelector('.zoom img').style.width")
    assert page.run("document.querySelector('.zoom img').getBoundingClientRect().width") >= 500
    assert page.run("document.querySelector('.zoom img').src.startsWith('data:image/svg+xml')")


def test_a_link_to_a_row_opens_what_it_is_folded_in(page):
    folded = "document.querySelector('details.beside')"
    assert not page.run(f"{folded}.open")
    page.run(f"location.hash = {folded}.querySelector('section').id")
    page.until(f"{folded}.open")


def test_light_and_dark(page, shown):
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.run(back)
    page.media(scheme="dark")
    dark = page.run(back)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(23, 24, 26)")
    # Figures have light paper behind them.
    assert page.run("getComputedStyle(document.querySelector('.picture')).backgroundColor") == light
    page.until("document.querySelector('.theme').innerText === 'Light'")
    page.run("document.querySelector('.theme').click()")
    assert page.run(back) == light
    page.media("print", "dark")
    assert page.run(back) == light
    page.run("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 400, 1000, 1600])
def test_nothing_is_wider_than_the_window(page, width):
    page.size(width, 800, mobile=width < 500)
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run("document.querySelector('.contents').offsetHeight > 0")


def test_without_scripts_all_claims_are_there(page):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.call("Page.reload")
    page._until(lambda m: m.get("method") == "Page.loadEventFired", 60, "reload")
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert len(rows_of(page, "#all-claims", [0])) == len(CLAIMS)
    assert page.run("[...document.querySelectorAll('.scripted')].every(e => !e.checkVisibility())")
    page.requests[:] = page.requests[:1]  # the page itself, twice


def test_hostile_names_are_inert(shown, tmp_path):
    opened, _ = shown
    config = fill_defaults(load_config("config/smoke.yaml")) | {"name": EVIL}
    texts = ("claim", "scope", "statement", "verdict", "measure", "unit", "test", "rule", "note")
    frames = through_parquet(
        tmp_path, make_rows([(EVIL, EVIL, EVIL)]) | {"claims": [claim(**dict.fromkeys(texts, EVIL))]}
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt">{HOSTILE}</svg>'
    graph = rulegraph.RuleGraph({EVIL: 1}, [], {EVIL: 0})
    page = render(
        frames | {EVIL: frames["claims"]}, {f"curves-{EVIL}": svg}, config, {EVIL: EVIL},
        parquet={EVIL: b"x"}, graph=graph,
    )  # fmt: skip
    path = tmp_path / "evil.html"
    path.write_text(page, encoding="utf-8")
    opened.complaints.clear()
    opened.requests.clear()
    opened.open(path)
    assert opened.complaints == []  # nothing even tried: the policy would have been complained of
    assert [u for u in opened.requests if not u.startswith("data:")] == [path.as_uri()]
    assert opened.run("document.querySelectorAll('script').length") == 1
    assert opened.run("document.querySelectorAll('img[onerror]').length") == 0
    assert EVIL in opened.run("document.querySelector('h1').innerText")


def test_the_policy_stops_what_escaping_would_miss(shown, tmp_path):
    opened, folder = shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    evil = "<script>window.hurt = 1</script><img src='x' onerror='window.hurt = 2'>"
    evil += "<img src='https://example.invalid/x.png'><style>body { color: red }</style>"
    path = tmp_path / "broken.html"
    path.write_text(re.sub("<main>", f"<main>{evil}", page, count=1), encoding="utf-8")
    opened.complaints.clear()
    opened.open(path)
    assert opened.run("window.hurt") is None
    assert opened.run("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    assert len(opened.complaints) >= 4
    opened.complaints.clear()
