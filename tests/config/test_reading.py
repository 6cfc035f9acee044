"""Config files are read as Snakemake reads them."""

from valleys.config.reading import load


def test_json_is_read_as_snakemake_does(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{\n\t"rate": 1e-3,\n\t"name": "a\\tb", "on": [true, null]\n}')
    assert load(path) == {"rate": 0.001, "name": "a\tb", "on": [True, None]}
