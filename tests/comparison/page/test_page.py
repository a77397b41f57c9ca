"""What is written into report.html."""

import builtins
import json
import re

import pytest

from difftori_gym.comparison.page import write as page_writer
from difftori_gym.comparison.page import write_page
from difftori_gym.comparison.records import Results, Standing, read_records
from difftori_gym.comparison.report import write_report

pytest.importorskip("plotly")


@pytest.fixture
def written(rows, write):
    return lambda **settings: write(rows, **settings).read_text(encoding="utf-8")


def embedded(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_one_file_of_moderate_size_that_asks_for_nothing_else(written):
    page = written()
    assert len(page.encode()) < 8_000_000
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in re.sub(r'<meta http-equiv="Content-Security-Policy"', "", ours)
    assert "default-src 'none'" in ours


def test_names_are_text_never_markup(written, hostile):
    page = written(commands=[hostile])
    assert "<img" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert page.count("</script>") == 3
    titles = [panel["title"] for panel in embedded(page)["panels"]]
    assert f"dm_control/{hostile} (state)" in titles


def test_states_of_runs(written):
    page = written(running=["tdmpc-cheetah-run-state-seed0"], waiting=["sac-cheetah-run-state-seed7"])
    states = dict(re.findall(r'<details id="run-([^"]*)" data-state="(\w+)"', page))
    expected = {
        "difftori-cheetah-run-state-seed0": "done",
        "sac-cheetah-run-state-seed1": "done",
        "tdmpc-cheetah-run-state-seed0": "running",
        "tdmpc-cheetah-run-state-seed1": "died",
        "sac-cheetah-run-state-seed7": "waiting",
    }
    assert expected.items() <= states.items()
    assert "train at 1,500 of 2,000 frames" in page
    assert "RuntimeError: x&lt;/script&gt;" in page
    assert "1 died, 1 running, 1 waiting, 4 done" in page
    assert embedded(page)["live"] is True


def test_a_run_that_nobody_works_on_is_interrupted(written):
    page = written()
    assert 'id="run-tdmpc-cheetah-run-state-seed0" data-state="interrupted"' in page
    assert embedded(page)["live"] is False


def test_a_run_tells_command_settings_machine_and_versions(written):
    page = written()
    for text in (
        "python examples/compare.py --methods sac --tasks dm_control/cheetah-run",
        "a machine",
        "torch 2.13.0",
        "&quot;note&quot;: ",
    ):
        assert text in page


def test_runs_that_are_not_done_count_in_curves_only(written):
    data = embedded(written(running=["tdmpc-cheetah-run-state-seed0"]))
    assert data["panels"][0]["curves"]["tdmpc"]["seeds"] == [2, 2, 2]
    assert len(data["overall"][0]["tasks"]) == 2  # TD-MPC has no run on cheetah-run that is done


def test_the_newest_scores_are_those_of_the_report(rows, out, written):
    page = written(running=["tdmpc-cheetah-run-state-seed0"])
    columns, *lines = [
        re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line)
        for line in re.search(r"<caption>dm_control/cheetah-run.*?</table>", page, re.DOTALL)[0].split("<tr")[1:]
    ]
    assert columns[-2:] == ["seeds done", "score per processor s"]
    assert [line[-2] for line in lines] == ["2 of 2", "0 of 2", "2 of 2"]
    write_report(Results(out, rows, read_records(out, Standing())))
    report = (out / "report.md").read_text(encoding="utf-8")
    for line in (columns, *lines):
        assert f"| {' | '.join(line[:-2])} |" in report
    assert "## Runs that died\n\n### tdmpc-cheetah-run-state-seed1\n\n```\nTraceback" in report


def test_films_are_links_grouped_by_start(out, written):
    (out / "videos").mkdir()
    for name in ("sac-cheetah-run-state-seed0", "difftori-cheetah-run-state-seed0", "sac-cheetah-run-state-seed1"):
        (out / "videos" / f"{name}.mp4").write_bytes(b"film")
    first, second = embedded(written())["films"]
    assert first["start"] == "dm_control/cheetah-run (state), seed 0"
    assert [film["address"] for film in first["films"]] == [
        *(f"videos/{method}-cheetah-run-state-seed0.mp4" for method in ("difftori", "sac"))
    ]
    assert [film["entry"] for film in second["films"]] == ["sac"]


def test_an_empty_folder_has_a_page(tmp_path):
    page = write_page(Results(tmp_path)).read_text(encoding="utf-8")
    assert "0 methods, 0 tasks, 0 runs" in page


def test_without_plotly_one_line_names_the_command(rows, out, write, monkeypatch, caplog):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("plotly"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    page_writer._plotly.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    try:
        assert write(rows) is None
        assert write(rows) is None
    finally:
        page_writer._plotly.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "No report.html, which needs plotly: pip install 'difftori-gym[compare]'"
    ]
    assert not (out / "report.html").exists()
