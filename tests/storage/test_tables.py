"""Tables hold what is declared, say what produced them, and are the same bytes for the same rows."""

import io
import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from valleys import __version__
from valleys.errors import ValleysError
from valleys.storage import tables

NAMES = (
    "training",
    "solutions",
    "averages",
    "directions",
    "curves",
    "searches",
    "search_curves",
    "asymmetry",
    "sensitivity",
    "theory_measured",
    "shift",
    "interpolation",
    "study",
    "alignment",
    "planes",
    "plane_points",
    "toy_2d",
)
NAMES += (
    "toy_2d_curves",
    "toy_2d_surface",
    "toy_2d_angles",
    "toy_2d_scans",
    "theory_average",
    "theory_gain",
    "verdicts",
    "claims",
    "looks",
    "comparison",
)
VALUES = {"string": "text", "int64": 3, "float64": 0.1, "bool": True}
POINT = {"recipe": "released", "draw": 1, "offset": -0.5, "loss": 0.25}


def row(table, **values):
    """A row of a declared table with some value of the right type in each column."""
    return {c["name"]: VALUES[c["type"]] for c in tables.declared()[table]["columns"]} | values


def test_all_tables_are_declared():
    assert tuple(tables.declared()) == NAMES


@pytest.mark.parametrize("table", NAMES)
def test_every_table_has_a_sound_schema(table):
    columns = tables.declared()[table]["columns"]
    names = [c["name"] for c in columns]
    assert len(set(names)) == len(names)
    assert tables.declared()[table]["meaning"].endswith(".")
    schema = tables.schema(table)
    assert schema.names == names
    for column, field in zip(columns, schema, strict=True):
        assert set(column) <= {"name", "type", "unit", "meaning", "optional"}, column
        assert re.fullmatch("[a-z][a-z0-9_]*", column["name"])
        assert {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}[
            field.type
        ] == column["type"]
        assert column.get("optional", False) in (True, False, "extra")
        assert field.nullable == bool(column.get("optional", False))
        assert field.metadata[b"meaning"].decode() == column["meaning"]
        assert field.metadata.get(b"unit", b"").decode() == column.get("unit", "")


def test_tables_of_cells_begin_with_the_cell():
    cells = ("training", "solutions", "directions", "curves", "asymmetry", "theory_measured", "shift")
    for name in (*cells, "interpolation"):
        assert tables.schema(name).names[:4] == ["dataset", "model", "recipe", "seed"]


@pytest.mark.parametrize("table", NAMES)
def test_rows_come_back_as_they_were(tmp_path, table):
    rows = [row(table), row(table)]
    tables.write(tmp_path / "t.parquet", table, rows)
    assert tables.read(tmp_path / "t.parquet", table).to_pylist() == rows
    assert list(tmp_path.iterdir()) == [tmp_path / "t.parquet"]


def test_an_empty_table_has_its_columns(tmp_path):
    tables.write(tmp_path / "t", "curves", [])
    data = tables.read(tmp_path / "t", "curves")
    assert (data.num_rows, data.schema.names) == (0, tables.schema("curves").names)


def test_numpy_values_and_special_floats_are_kept(tmp_path):
    rows = [
        {"recipe": "released", "draw": np.int64(2**62 + 1), "offset": np.float64(1e-300), "loss": math.nan},
        {"recipe": "é", "draw": np.int32(-1), "offset": 2, "loss": -math.inf},
    ]
    tables.write(tmp_path / "t", "toy_2d_curves", rows)
    got = tables.read(tmp_path / "t", "toy_2d_curves").to_pylist()
    assert math.isnan(got[0].pop("loss"))
    assert got == [
        {"recipe": "released", "draw": 2**62 + 1, "offset": 1e-300},
        {"recipe": "é", "draw": -1, "offset": 2.0, "loss": -math.inf},
    ]


def test_an_arrow_table_may_have_its_columns_in_any_order(tmp_path):
    data = pa.table({name: [POINT[name]] for name in reversed(POINT)})
    tables.write(tmp_path / "t", "toy_2d_curves", data)
    assert tables.read(tmp_path / "t", "toy_2d_curves").to_pylist() == [POINT]
    assert tables.read(tmp_path / "t", "toy_2d_curves").schema.names == list(POINT)


def without_extras(table, **values):
    """A row as it was before a table had extra columns."""
    return {key: value for key, value in row(table, **values).items() if key not in tables.extras(table)}


@pytest.mark.parametrize("arrow", [False, True])
def test_an_extra_column_without_values_is_not_in_the_file(tmp_path, arrow):
    """So files of runs without are what they were before there was such a column, and are still read."""
    assert tables.extras("asymmetry") == {"certain"}
    sharpness = {
        name
        for name in tables.extras("solutions")
        if name.startswith(("sharpness_", "hessian_", "curvature_"))
    }
    assert tables.extras("solutions") - sharpness == {"classes", "wrong_labels", "kernels"}
    assert tables.extras("shift") == set()
    old = [without_extras("asymmetry", k=k) for k in range(2)]
    null = [one | {"certain": None} for one in old]
    for name, rows in (("left out", old), ("null", null), ("mixed", [old[0], null[1]])):
        given = pa.Table.from_pylist(rows, schema=tables.schema("asymmetry")) if arrow else rows
        tables.write(tmp_path / name, "asymmetry", given)
        assert "certain" not in tables.pq.read_schema(tmp_path / name).names
        assert tables.read(tmp_path / name, "asymmetry").to_pylist() == null
        assert tables.read(tmp_path / name, "asymmetry").schema.equals(tables.schema("asymmetry"))
        assert tables.read(tmp_path / name, "asymmetry", fill=False).to_pylist() == old
    assert (tmp_path / "null").read_bytes() == (tmp_path / "left out").read_bytes()


def test_an_extra_column_with_values_is_in_the_file(tmp_path):
    rows = [without_extras("asymmetry", k=0), row("asymmetry", k=1, certain=False)]
    tables.write(tmp_path / "t", "asymmetry", rows)
    got = tables.read(tmp_path / "t", "asymmetry")
    assert got["certain"].to_pylist() == [None, False]
    both = tables.concat([tmp_path / "t", tmp_path / "t"], "asymmetry")
    tables.write(tmp_path / "both", "asymmetry", both)
    assert tables.read(tmp_path / "both", "asymmetry")["certain"].to_pylist() == [None, False] * 2


def test_files_with_and_without_an_extra_column_are_stacked(tmp_path):
    tables.write(tmp_path / "old", "curves", [without_extras("curves")])
    tables.write(tmp_path / "new", "curves", [row("curves", train_error=0.5)])
    both = tables.concat([tmp_path / "old", tmp_path / "new"], "curves")
    assert both["train_error"].to_pylist() == [None, 0.5]


def test_an_extra_column_of_another_type_is_refused(tmp_path):
    data = pa.table({**{k: [v] for k, v in without_extras("asymmetry").items()}, "certain": ["yes"]})
    refused(tmp_path / "t", "asymmetry", data, "certain", "bool")


def refused(path, table, rows, *words):
    with pytest.raises(ValleysError) as caught:
        tables.write(path, table, rows)
    for word in (table, str(path), "tables.yaml", *words):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("arrow", [False, True])
def test_missing_and_unknown_columns_are_named(tmp_path, arrow):
    bad = {key: value for key, value in POINT.items() if key != "loss"} | {"los": 0.1}
    rows = pa.table({key: [value] for key, value in bad.items()}) if arrow else [POINT, bad]
    refused(tmp_path / "t", "toy_2d_curves", rows, "missing loss, unknown los")


WRONG = {
    "text in a float column": ("loss", "0.1", "double"),
    "text in an int column": ("draw", "1", "int64"),
    "a float in an int column": ("draw", 1.0, "int64"),
    "half in an int column": ("draw", 1.5, "int64"),
    "an int in a string column": ("recipe", 3, "string"),
    "a bool in a float column": ("loss", True, "double"),
    "a list in a float column": ("loss", [0.1], "double"),
}


@pytest.mark.parametrize("arrow", [False, True])
@pytest.mark.parametrize("what", WRONG)
def test_another_type_is_refused(tmp_path, what, arrow):
    column, value, want = WRONG[what]
    bad = POINT | {column: value}
    rows = pa.table({key: [v] for key, v in bad.items()}) if arrow else [bad]
    refused(tmp_path / "t", "toy_2d_curves", rows, column, want)


def test_a_column_of_mixed_types_is_refused(tmp_path):
    refused(tmp_path / "t", "toy_2d_curves", [POINT, POINT | {"loss": "high"}], "loss")
    refused(tmp_path / "t", "toy_2d_curves", [POINT | {"recipe": "a"}, POINT | {"recipe": 1}], "recipe")


def test_an_int_in_a_bool_column_is_refused(tmp_path):
    refused(tmp_path / "t", "toy_2d", [row("toy_2d", separable=1)], "separable", "bool")


def test_nulls_are_for_optional_columns(tmp_path):
    rows = [row("training", test_loss=None), row("training")]
    tables.write(tmp_path / "t", "training", rows)
    assert tables.read(tmp_path / "t", "training")["test_loss"].to_pylist() == [None, 0.1]
    tables.write(tmp_path / "all", "training", rows[:1])  # a column of nothing but nulls
    assert tables.read(tmp_path / "all", "training")["test_loss"].to_pylist() == [None]
    refused(
        tmp_path / "n", "training", [row("training"), row("training", train_loss=None)], "train_loss", "null"
    )
    refused(tmp_path / "n", "training", [row("training", recipe=None)], "recipe", "null")


def test_provenance_comes_back(tmp_path):
    config = {"spec": {"c": 2.0, "names": ["a", None]}, "version": 1}
    tables.write(tmp_path / "t", "toy_2d_curves", [POINT], config)
    about = tables.about(tmp_path / "t")
    assert (about["table"], about["config"]) == ("toy_2d_curves", config)
    assert about["versions"]["valleys"] == __version__
    assert about["versions"]["pyarrow"] == pa.__version__
    assert set(about["versions"]) <= set(tables.PACKAGES)
    assert str(tmp_path) not in str(about)


def test_the_same_rows_make_the_same_bytes(tmp_path):
    config = {"b": 1, "a": 2}
    tables.write(tmp_path / "one", "toy_2d_curves", [POINT] * 3, config)
    tables.write(tmp_path / "two", "toy_2d_curves", [dict(reversed(POINT.items()))] * 3, {"a": 2, "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    tables.write(tmp_path / "two", "toy_2d_curves", [POINT] * 2 + [POINT | {"loss": 0.3}], config)
    assert (tmp_path / "one").read_bytes() != (tmp_path / "two").read_bytes()


def test_absent_tables_are_an_error(tmp_path):
    with pytest.raises(ValleysError, match="does not exist; rerun"):
        tables.read(tmp_path / "none", "curves")


def test_truncated_tables_are_always_an_error(tmp_path):
    path = tmp_path / "t"
    tables.write(path, "toy_2d_curves", [POINT | {"draw": i} for i in range(50)])
    whole = path.read_bytes()
    for length in [0, 3, *range(4, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValleysError, match="truncated or not Parquet") as caught:
            tables.read(path, "toy_2d_curves")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_flipped_bit_in_the_data_never_gives_other_numbers(tmp_path):
    path = tmp_path / "t"
    numbers = np.random.default_rng(0).normal(size=40)
    tables.write(path, "toy_2d_curves", [POINT | {"loss": float(x)} for x in numbers])
    whole = path.read_bytes()
    pages = pq.read_metadata(path).row_group(0).column(3)
    first = min(pages.data_page_offset, pages.dictionary_page_offset or pages.data_page_offset)
    errors = 0
    for bit in range(8 * first, 8 * (first + pages.total_compressed_size), 13):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = tables.read(path, "toy_2d_curves")["loss"].to_numpy()
        except ValleysError:
            errors += 1
        else:
            assert (found == numbers).all(), bit
    assert errors > 100


def test_a_table_of_another_kind_is_an_error(tmp_path):
    tables.write(tmp_path / "t", "toy_2d_curves", [POINT])
    with pytest.raises(ValleysError, match="does not have the columns declared for curves"):
        tables.read(tmp_path / "t", "curves")
    pq.write_table(pa.table({"weight": ["a"], "bias": [0.0], "loss": [0.0]}), tmp_path / "u")
    with pytest.raises(ValleysError, match="does not have the columns declared for toy_2d_surface"):
        tables.read(tmp_path / "u", "toy_2d_surface")


def test_concat_keeps_the_order_given(tmp_path):
    for i in (2, 0, 1):
        rows = [POINT | {"draw": 10 * i + j} for j in range(i)]  # the file of i = 0 has no rows
        tables.write(tmp_path / str(i), "toy_2d_curves", rows, {"part": i})
    data = tables.concat((tmp_path / name for name in "201"), "toy_2d_curves")
    assert data["draw"].to_pylist() == [20, 21, 10]
    empty = tables.concat([], "toy_2d_curves")
    assert (empty.num_rows, empty.schema.names) == (0, list(POINT))
    tables.write(tmp_path / "all", "toy_2d_curves", data)
    assert tables.read(tmp_path / "all", "toy_2d_curves").num_rows == 3


# --- the checksum of the content ---


@pytest.mark.slow
def test_a_flipped_bit_anywhere_never_gives_other_content(tmp_path):
    """In pages, page headers or the footer; Parquet's own checksums cover pages alone."""
    path = tmp_path / "t"
    rows = [POINT | {"loss": float(x)} for x in np.random.default_rng(0).normal(size=40)]
    tables.write(path, "toy_2d_curves", rows, {"a": 1})
    whole, about = path.read_bytes(), tables.about(path)
    messages = []
    for bit in range(0, 8 * len(whole), 29):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = tables.read(path, "toy_2d_curves").to_pylist(), tables.about(path)
        except ValleysError as error:
            messages.append(str(error))
        else:
            assert found == (rows, about), bit
    assert len(messages) > 300
    assert all(str(path) in text and "rerun" in text and "\n" not in text for text in messages)


@pytest.mark.slow
def test_what_is_read_is_written_again_as_it_was_before_a_harmless_flip(tmp_path):
    path = tmp_path / "table.parquet"
    tables.write(path, "toy_2d_curves", [{**POINT, "offset": x / 7} for x in range(2000)])
    whole, harmless = path.read_bytes(), 0
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            found = tables.read(path, "toy_2d_curves")
        except ValleysError:
            continue
        harmless += 1
        tables.encode(found, stream := io.BytesIO())
        assert stream.getvalue() == whole, at
    assert harmless


@pytest.mark.parametrize("change", ["value", "null", "text", "config"])
def test_content_that_its_checksum_does_not_fit_is_refused(tmp_path, change):
    """Whatever page checksums say: the file is written anew, with the old checksum."""
    path = tmp_path / "t"
    tables.write(path, "training", [row("training"), row("training", test_loss=None)], {"epochs": 3})
    data = tables.read(path, "training")
    about = tables.about(path)
    if change == "config":
        about["config"]["epochs"] = 4
    else:
        name, value = {"value": ("lr", 0.2), "null": ("test_loss", 0.0), "text": ("model", "tex")}[change]
        values = [data[name][0].as_py(), value]
        at = data.schema.get_field_index(name)
        data = data.set_column(at, data.schema.field(name), pa.array(values, data.schema.field(name).type))
    meta = {"valleys": json.dumps(about, sort_keys=True)}
    pq.write_table(data.replace_schema_metadata(meta), path)
    with pytest.raises(ValleysError, match="does not match its checksum; delete it and rerun"):
        tables.read(path, "training")


def test_tables_of_older_runs_have_no_checksum_and_are_read(tmp_path):
    path = tmp_path / "t"
    tables.write(path, "toy_2d_curves", [POINT])
    about = tables.about(path)
    del about["checksum"]
    meta = {"valleys": json.dumps(about)}
    pq.write_table(tables.read(path, "toy_2d_curves").replace_schema_metadata(meta), path)
    assert tables.read(path, "toy_2d_curves").to_pylist() == [POINT]
    pq.write_table(tables.read(path, "toy_2d_curves").replace_schema_metadata({}), path)
    with pytest.raises(ValleysError, match="does not say what made it; delete it and rerun"):
        tables.read(path, "toy_2d_curves")


def test_the_checksum_is_of_values_not_of_how_arrow_holds_them():
    values, text = [0.1, None, math.nan, -0.0], ["é", None, "", "ab"]
    whole = pa.table({"x": pa.array(values, pa.float64()), "t": pa.array(text, pa.string())})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 0), whole.slice(1)])
    assert pieces["x"].num_chunks == 3
    assert tables.checksum(pieces) == tables.checksum(whole)
    other_nan = whole["x"].to_pandas().to_numpy().copy()
    other_nan.view(np.int64)[2] ^= 1
    x = pa.array(other_nan, mask=np.array([False, True, False, False]), from_pandas=False)
    assert tables.checksum(whole.set_column(0, whole.schema.field("x"), x)) == tables.checksum(whole)
    for name, column in (
        ("x", [0.1, 0.0, math.nan, -0.0]),  # a null is no 0
        ("x", [0.1, None, math.nan, 0.0]),
        ("t", ["é", "", "", "ab"]),
        ("t", ["é", None, "a", "b"]),
    ):
        at = whole.schema.get_field_index(name)
        other = whole.set_column(at, whole.schema.field(name), pa.array(column, whole.schema.types[at]))
        assert tables.checksum(other) != tables.checksum(whole), column
