"""Captions: one a kind of figure, plain prose, and a place in the menu of Snakemake's report."""

import docutils.core
import docutils.nodes
import pytest
from config_changes import experiment
from figure_tables import SPEC
from valleys import figures
from valleys.config import captions, outputs
from valleys.config.catalogue import FIGURES
from valleys.errors import ValleysError
from valleys.figures import curves, toy_angles
from valleys.storage import schemas

OTHERS = ("figure", "claims", "verdicts", "report", "workflow")
FOLDER = schemas.caption("workflow.rst").parent


def test_each_kind_of_figure_has_a_caption_and_there_are_no_others():
    there = {path.stem for path in FOLDER.glob("*.rst")}
    missing, more = set(FIGURES) - there, there - set(FIGURES) - set(OTHERS)
    assert not missing, f"no caption: write workflow/report/{{{','.join(missing)}}}.rst"
    assert not more, f"captions of nothing: {more}"


@pytest.mark.parametrize("name", [*FIGURES, "claims", "verdicts", "report"])
def test_a_caption_is_plain_prose(name):
    """So our own page can show it as it is: no markup, nothing that docutils or Jinja take for some."""
    text = schemas.caption(f"{name}.rst").read_text(encoding="utf-8")
    document = docutils.core.publish_doctree(text, settings_overrides={"report_level": 5})
    assert len(document.children) >= 2  # what is drawn, and how to read it
    for paragraph in document.children:
        assert isinstance(paragraph, docutils.nodes.paragraph), paragraph.pformat()
        assert [type(part) for part in paragraph.children] == [docutils.nodes.Text], paragraph.pformat()
    assert not set("{}") & set(text)
    assert captions.text(name).split() == text.split()
    assert len(captions.text(name).splitlines()) == len(document.children)
    assert max(map(len, text.splitlines())) <= 110


def test_numbers_in_captions_are_those_of_the_code():
    assert f"exceed {curves.EXPLODES:,.0f} nats" in captions.text("curves")
    assert f"first {toy_angles._SHOWN} draws" in captions.text("toy-angles")


def test_the_page_has_the_same_caption(figure_data):
    for name in ("training", "line-swa-descent", "toy-angles"):
        said = figures.caption(name, figure_data, SPEC)
        first, _, _ = captions.path(name).read_text(encoding="utf-8").partition("\n\n")
        assert said.startswith(" ".join(first.split()))


def test_figures_of_networks_and_of_simulations_stand_apart():
    made = outputs.figures(experiment())
    simulated = [name for name in made if captions.category(name) == captions.SIMULATIONS]
    gone = set(made) - set(outputs.figures(experiment(("simulations", False))))
    assert set(simulated) == gone
    assert {captions.subcategory(name) for name in simulated} == {"One neuron", "Theorems"}


def test_labels_tell_figures_apart():
    made = outputs.figures(experiment())
    labels = [captions.labels(name) for name in made]
    assert len({label["figure"] for label in labels}) == len(made)
    assert captions.labels("line-swa-descent") == {
        "figure": "Line between solutions: swa-descent",
        "file": "line-swa-descent",
    }


def test_a_figure_that_is_none():
    with pytest.raises(ValleysError, match="figure 'lime-swa' is not known; there are training, "):
        captions.title("lime-swa")
