"""The files of iterates: found, thinned, lost."""

import pytest
from valleys.errors import ValleysError
from valleys.training.iterates import DROPPED, iterate_files, note_dropped
from valleys.training.schedule import kept_epochs

SHORT = {"epochs": 10, "swa": {"start": 4, "every": 2}}


def test_iterates_of_the_window_are_found(tmp_path):
    for epoch in (6, 8, 10):
        (tmp_path / f"epoch-{epoch:05d}.safetensors").write_text("")
    note_dropped(tmp_path, SHORT)
    assert not (tmp_path / DROPPED).exists()
    assert [path.stem for path in iterate_files(tmp_path, None)] == [
        "epoch-00006",
        "epoch-00008",
        "epoch-00010",
    ]
    assert [path.stem for path in iterate_files(tmp_path, 2)] == ["epoch-00008", "epoch-00010"]


def test_thinned_iterates_say_so_when_more_are_wanted(tmp_path):
    for epoch in (8, 10):
        (tmp_path / f"epoch-{epoch:05d}.safetensors").write_text("")
    note_dropped(tmp_path, SHORT)
    assert len(iterate_files(tmp_path, 2)) == 2
    for window, wanted in ((3, "3"), (None, "all")):
        with pytest.raises(ValleysError, match=rf"keeps the last 2 iterates .* and {wanted} are wanted"):
            iterate_files(tmp_path, window)


def test_a_lost_iterate_is_no_smaller_average(tmp_path):
    folder = tmp_path / "iterates"
    folder.mkdir()
    for epoch in (6, 8, 10):
        (folder / f"epoch-{epoch:05d}.safetensors").write_text("")
    epochs = kept_epochs(SHORT)
    assert len(iterate_files(folder, None, epochs)) == 3
    (folder / "epoch-00008.safetensors").unlink()
    for window in (None, 2, 3):
        with pytest.raises(ValleysError, match=r"lacks epoch-00008.safetensors; delete the folder") as caught:
            iterate_files(folder, window, epochs)
        assert str(folder) in str(caught.value)
    assert len(iterate_files(folder, 1, epochs)) == 1
