"""What is copied, in which order, and what is left when copying stops in the middle."""

import fsspec
import pytest

from difftori_gym.comparison.engines.storage import Storage


def checkpoint(out, steps, *, keep=False):
    folder = out / "runs/a" / f"checkpoint-{steps:09d}"
    folder.mkdir(parents=True)
    for name in ("model.zip", "training_state.pkl", "state.json"):
        (folder / name).write_text(f"{name} {steps}")
    if not keep:
        for old in sorted(out.glob("runs/a/checkpoint-*"))[:-1]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


def stored(uri):
    system, root = fsspec.core.url_to_fs(uri)
    return sorted(path.removeprefix(f"{root}/") for path in system.find(root))


@pytest.fixture(params=["file", "memory"])
def uri(request, tmp_path):
    yield f"{request.param}://{tmp_path}/storage"
    fsspec.filesystem("memory").store.clear()


def test_a_copy_follows_the_folder(tmp_path, uri):
    out, storage, sent = tmp_path / "out", Storage(uri), {}
    checkpoint(out, 5)
    (out / "runs/a/results.csv").write_text("5")
    for name in ("progress.json", ".unfinished-1-results.csv"):
        (out / "runs/a" / name).write_text("")
    storage.save(out, sent)
    names = ["model.zip", "state.json", "training_state.pkl"]
    assert stored(uri) == [*(f"runs/a/checkpoint-000000005/{name}" for name in names), "runs/a/results.csv"]
    checkpoint(out, 10)
    storage.save(out, sent)
    assert stored(uri) == [*(f"runs/a/checkpoint-000000010/{name}" for name in names), "runs/a/results.csv"]
    copy = tmp_path / "copy"
    assert storage.load(copy, ["runs/a", "videos/a.mp4"]).keys() == sent.keys()
    assert (copy / "runs/a/checkpoint-000000010/model.zip").read_text() == "model.zip 10"
    assert list(storage.load(tmp_path / "small", ["runs/a"], checkpoints=False)) == ["runs/a/results.csv"]


@pytest.mark.parametrize("dies_after", range(3))
def test_the_record_comes_last_and_the_older_checkpoint_stays_until_then(tmp_path, uri, dies_after, monkeypatch):
    out, storage, sent = tmp_path / "out", Storage(uri), {}
    checkpoint(out, 5)
    storage.save(out, sent)
    checkpoint(out, 10)
    put, copied = Storage._put, []

    def dies(*arguments):
        if len(copied) == dies_after:
            raise KeyboardInterrupt
        copied.append(arguments)
        put(*arguments)

    monkeypatch.setattr(Storage, "_put", staticmethod(dies))
    with pytest.raises(KeyboardInterrupt):
        storage.save(out, sent)
    left = stored(uri)
    assert "runs/a/checkpoint-000000010/state.json" not in left
    assert len([path for path in left if "000000005" in path]) == 3


def test_a_run_begins_with_all_it_has_and_goes_on_with_its_settings_alone(tmp_path, uri):
    out, storage = tmp_path / "out", Storage(uri)
    (out / "runs/a").mkdir(parents=True)
    (out / "runs/a/run.json").write_text("1")
    (out / "runs/a/results.csv").write_text("old")
    storage.begin(out, "a")
    assert stored(uri) == ["runs/a/results.csv", "runs/a/run.json"]
    (out / "runs/a/run.json").write_text("2")
    (out / "runs/a/results.csv").write_text("older than what nodes have stored since")
    storage.begin(out, "a")
    storage.load(tmp_path / "copy", ["runs/a"])
    assert (tmp_path / "copy/runs/a/run.json").read_text() == "2"
    assert (tmp_path / "copy/runs/a/results.csv").read_text() == "old"


def test_a_storage_that_cannot_be_written_says_so_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for uri in (f"file://{tmp_path}/file/inside", "nowhere://bucket"):
        assert Storage(uri).fault()
        assert "\n" not in Storage(uri).fault()
    assert Storage(f"file://{tmp_path}/new").fault() == ""
