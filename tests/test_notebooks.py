"""The notebooks of ``examples/``, run by a kernel as an editor does, on files that they make themselves."""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from valleys import detect

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
STATUSES = {"asymmetric", "symmetric", "not_minimum", "flat"}


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook, folder, asked=""):
    """Run all cells in a folder; return the outputs of each, and what a last expression is, from JSON."""
    last = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({asked or None}))")
    notebook.cells.append(last)
    # allow_errors stays False: a cell that raises ends the run, and the test.
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute()
    *shown, (answer,) = [cell.outputs for cell in code_cells(notebook)]
    return shown, json.loads(answer.text)


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Where a kernel finds the library, and folders in which it leaves its own files."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "workflow" / "scripts"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("MPLBACKEND", "PLOTLY_RENDERER"):  # as set for tests, not for users
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def kinds(outputs):
    """The kinds of output of a cell, all that is shown together."""
    return {kind for one in outputs for kind in one.get("data", {"text": one.get("text")})}


def said(outputs):
    return "".join(one.text for one in outputs if one.get("name") == "stdout")


@pytest.mark.slow
@pytest.mark.long
def test_first_look(kernel):
    shown, found = run(read("first_look.ipynb"), kernel, '{"status": verdict.status, "c": verdict.c_star}')
    assert found["status"] in STATUSES
    training, looking, table, contours, surface = shown
    assert training == []
    assert said(looking) == f"{found['status']}, c* {found['c']:.2f}\n"
    assert "image/png" in kinds(looking)  # by the inline backend
    assert "<table" in table[0].data["text/html"]
    assert "image/png" in kinds(contours)
    assert "application/vnd.plotly.v1+json" in kinds(surface)
    assert (kernel / "line.png").read_bytes().startswith(b"\x89PNG")
    assert "Plotly.newPlot" in (kernel / "plane.html").read_text(encoding="utf-8")
    assert {path.name for path in kernel.iterdir()} == {"mine.pt", "line.png", "plane.html"}
    assert "Warning" not in str(shown)


@pytest.mark.slow
@pytest.mark.long
def test_curves_to_verdict(kernel):
    asked = "{'table': verdicts[['status', 'c_star']].to_dict(), 'search': search.verdict}"
    shown, found = run(read("curves_to_verdict.ipynb"), kernel, asked)
    statuses = found["table"]["status"]
    assert set(statuses.values()) <= STATUSES
    assert found["search"] in ("found", "not found")
    curves = pd.read_csv(kernel / "curves.csv")
    assert set(curves["direction"]) == set(statuses)
    assert len(statuses) > 5
    for name, curve in curves.groupby("direction"):
        assert detect(curve["offset"], curve["train_loss"], noise=1e-6).status == statuses[name]
        middle = curve.loc[curve["offset"] == 0, "train_loss"].item()
        assert curve["train_loss"].max() - middle == pytest.approx(1, rel=0.2)  # where it says a line ends
    figure = (kernel / "verdicts.pdf").read_bytes()
    assert figure.startswith(b"%PDF-")
    assert figure.rstrip().endswith(b"%%EOF")
    assert "image/png" in kinds(shown[-1])
    assert {path.name for path in kernel.iterdir()} == {"curves.csv", "verdicts.pdf"}
    assert "Warning" not in str(shown)


@pytest.mark.slow
@pytest.mark.long
def test_a_cell_that_raises_fails_the_run(kernel):
    """What the two tests above rest on."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run(notebook, kernel)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_results(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None), "clear all outputs before a commit"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_of_a_notebook_lead_somewhere_and_the_readme_names_it(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", text)
    assert links
    assert not [link for link in links if not (FOLDER / link).exists()]
    for page in ("examples/README.md", "README.md", "docs/how-to/network.md"):
        assert name in (FOLDER.parent / page).read_text(encoding="utf-8")


def test_the_first_look_takes_ten_lines():
    (cell,) = [cell for cell in code_cells(read("first_look.ipynb")) if "Landscape(" in cell.source]
    assert len([line for line in cell.source.splitlines() if line.strip()]) <= 10
