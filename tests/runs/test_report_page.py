"""The page: whole in itself, true to the numbers, and shown by a real browser."""

from __future__ import annotations

import csv
import re
import runpy
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("tyro")
pytest.importorskip("matplotlib")

from matplotlib import image
from synthetic_runs import evaluations, write_run

from qmp_collect.runs.__main__ import main as qmp
from qmp_collect.runs.report import figures, sharing
from qmp_collect.runs.report.arms import studies
from qmp_collect.runs.report.page import write_report
from qmp_collect.runs.report.runs import find_runs, load_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EMPTY = {"meta", "link", "br", "img", "use", "path", "image"}


class Parsed(HTMLParser):
    """Texts, attributes, and whether what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def mixed(rows, *matrices):
    """A mixture in every row but the first."""
    for row, matrix in zip(rows[1:], matrices, strict=True):
        row["qmp/mixture"] = matrix
    return rows


def arms(root: Path, seeds: int) -> Path:
    """Own policies and QMP on two tasks, ``seeds`` runs each."""
    for seed in range(1, seeds + 1):
        values = [(0.0, 0.0), (0.0, 0.2 * seed), (0.5, 1.0), (1.0, 1.0)]
        early, late = [[0.5, 0.5], [0.75, 0.25]], [[1.0, 0.0], [0.25, 0.75]]
        rows = mixed(evaluations(*values), early, early, late)
        write_run(root, f"own{seed}", evaluations(*values[:1], *values[:3]), seed=seed)
        write_run(root, f"qmp{seed}", rows, seed=seed, switch="qmp")
    return root


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Three seeds, an unfinished run, one that is excluded, one that cannot be read, and a hostile name."""
    root = arms(tmp_path_factory.mktemp("runs"), 3)
    write_run(root, "early", evaluations(0.0, 0.1), switch="qmp", seed=9, done=False, total_timesteps=30)
    write_run(root, "qmp1 again", evaluations(0.0, 0.1), switch="qmp", seed=1, done=False, total_timesteps=30)
    write_run(root, "odd", evaluations(0.5, 0.5), env_id="<script>alert(1)</script>", start={"modified": True})
    (write_run(root, "broken", []) / "config.json").write_text("{")
    return write_report([root], root.parent / "out", title="A & B <i>")


def test_nothing_is_fetched_and_nothing_is_executed(page):
    text = page.read_text()
    parsed = Parsed(text)
    assert not parsed.open
    assert "script" not in parsed.tags
    assert "<i>" not in text
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href", "data", "poster", "srcset"):
            assert value.startswith(("#", "data:")) or not re.match(r"[a-z]*:|//|/", value), value
        elif not name.startswith("xmlns"):
            assert "http" not in value or name == "http-equiv", (name, value)
    assert not re.search(r"url\((?!#)|@import", text)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in parsed.attributes


def test_identifiers_are_of_one_element_each_and_are_there(page):
    attributes = Parsed(page.read_text()).attributes
    identifiers = [value for name, value in attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    wanted = {value[1:] for name, value in attributes if name in ("href", "xlink:href") and value.startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]*)\)", page.read_text()))
    assert wanted <= set(identifiers)


def test_links_to_raw_data_lead_there(page):
    links = [value for name, value in Parsed(page.read_text()).attributes if name == "href"]
    files = [page.parent / unquote(value) for value in links if not value.startswith(("#", "data:"))]
    assert len(files) > 25
    assert all(file.exists() for file in files)
    assert any(file.parent.name == "qmp1 again" for file in files)


def test_every_run_is_listed_with_its_origin(page):
    text = " ".join(Parsed(page.read_text()).texts)
    assert "9 runs of Toy-v0, <script>alert(1)</script>: 7 finished, 1 not finished, 1 excluded, 1 not readable" in text
    assert "own: 3 runs (seeds 1, 2, 3)" in text
    assert "QMP: 3 runs (seeds 1, 2, 3), 1 not finished" in text
    assert "not finished: 10 of 30 steps" in text
    assert "the same settings and seed as qmp1, which got further" in text
    assert "broken" in text
    assert text.count("modified files") == 1
    assert "0123456789" in text
    assert "Abacus 1, 2 cores" in text
    assert "python 3.11.7, numpy 2.0.0" in text
    assert "python sac.py --env-id Toy --run-dir-root runs" in text  # neither paths nor unknown flags
    assert "hunter2" not in text
    assert "/home/me" not in text


def test_the_same_runs_give_the_same_page(page):
    again = write_report([page.parent.parent / "runs0"], page.parent.parent / "again", title="A & B <i>")
    assert again.read_bytes() == page.read_bytes()


def test_numbers_as_csv(tmp_path):
    write_run(tmp_path / "runs", "a", evaluations((0.25, 0.75)), seed=3)
    rows = mixed(evaluations((0.0, 1.0), (1.0, 1.0)), [[0.5, 0.5], [0.25, 0.75]])
    write_run(tmp_path / "runs", "b", rows, switch="qmp", seed=4)
    write_report([tmp_path / "runs"], tmp_path)
    with open(tmp_path / "results.csv", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["method", "set", "task", "seed", "metric", "env_step", "value"]
    assert lines[:3] == [
        ["own", "Toy-v0", "mean", "3", "eval/success", "0", "0.5"],
        ["own", "Toy-v0", "left", "3", "eval/success", "0", "0.25"],
        ["own", "Toy-v0", "right", "3", "eval/success", "0", "0.75"],
    ]
    assert [line[2:] for line in lines[3:] if line[4].startswith("qmp") or line[5] == "10"] == [
        ["mean", "4", "eval/success", "10", "1.0"],
        ["left", "4", "eval/success", "10", "1.0"],
        ["right", "4", "eval/success", "10", "1.0"],
        ["left", "4", "qmp/foreign_fraction", "10", "0.5"],
        ["right", "4", "qmp/foreign_fraction", "10", "0.25"],
    ]
    assert len(lines) == 3 + 6 + 2
    assert (tmp_path / "mixture.csv").read_text().splitlines() == [
        "method,set,seed,env_step,task,policy,fraction",
        "QMP,Toy-v0,4,10,left,left,0.5",
        "QMP,Toy-v0,4,10,left,right,0.5",
        "QMP,Toy-v0,4,10,right,left,0.25",
        "QMP,Toy-v0,4,10,right,right,0.75",
    ]


def test_tables_as_text_and_their_estimates_unrounded(tmp_path):
    for seed, value in ((1, 0.25), (2, 0.75)):
        write_run(tmp_path / "runs", f"{seed}", evaluations(value), seed=seed)
    write_run(tmp_path / "runs", "3", evaluations(1.0), switch="qmp", seed=1)
    write_report([tmp_path / "runs"], tmp_path, title="Two arms", hypotheses=["own > 0.5", "QMP > own"])
    with open(tmp_path / "intervals.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    primary = [line for line in lines if line["table"] == "eval/success: mean of the last 10 % of evaluations"]
    own, iqm, qmp = primary[:3]
    assert (own["set"], own["row"], own["runs"], own["estimate"]) == ("Toy-v0", "own", "2", "0.5")
    half = 12.706204736 * 0.25  # t(0.975, 1) times the standard error
    assert [float(own[name]) for name in ("low", "high")] == pytest.approx([0.5 - half, 0.5 + half])
    assert (iqm["column"], iqm["estimate"], iqm["low"]) == ("interquartile mean [bootstrap]", "0.5", "")
    assert (qmp["row"], qmp["estimate"], qmp["low"], qmp["high"]) == ("QMP", "1.0", "", "")
    with open(tmp_path / "hypotheses.csv", newline="") as file:
        head, number, pair = csv.reader(file)
    assert head == ["set", "metric", "hypothesis", "runs", "difference", "low", "high", "p", "p_holm", "verdict"]
    assert number[:4] == ["Toy-v0", "eval/success", "own > 0.5", "2"]
    assert [float(x) for x in number[4:-1]] == pytest.approx([0.0, -half, half, 1.0, 1.0])
    assert pair == ["Toy-v0", "eval/success", "QMP > own", "1, 2", "", "", "", "", "", "open"]
    text = (tmp_path / "tables.md").read_text()
    assert text.startswith(
        "# Two arms\n\n## Toy-v0\n\n### eval/success: mean of the last 10 % of evaluations\n\n| arm |"
    )
    assert "| own | 2 | 0.5 [-2.7, 3.7] |" in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_runs(seeds, tmp_path):
    text = write_report([arms(tmp_path / "runs", seeds)], tmp_path, hypotheses=["QMP > own"]).read_text()
    assert f"[{seeds} run{'s' * (seeds > 1)}]" in text
    assert not re.search(r"\bnan\b", " ".join(Parsed(text).texts))
    assert ("not enough runs" in text) == (seeds == 1)


def test_runs_that_have_only_begun(tmp_path):
    write_run(tmp_path / "runs", "begun", [], done=False)
    text = write_report([tmp_path / "runs"], tmp_path).read_text()
    assert "Nothing has been evaluated yet" in text
    write_run(tmp_path / "runs", "evaluated", evaluations(0.0), switch="qmp", done=False)
    text = write_report([tmp_path / "runs"], tmp_path).read_text()
    assert "no tables yet" in text


def test_files_that_the_suite_puts_beside_the_folders_are_no_runs(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / "runs", name, evaluations(0.5), seed=ord(name))
        (tmp_path / "runs" / f"{name}.log").touch()
    text = write_report(sorted((tmp_path / "runs").iterdir()), tmp_path / "out").read_text()
    assert "2 finished, 0 not finished, 0 excluded, 0 not readable" in text


def test_what_cannot_be_reported(tmp_path):
    with pytest.raises(ValueError, match="expected a run folder at least"):
        write_report([tmp_path / "absent"], tmp_path)
    with pytest.raises(ValueError, match=r"no arm 'QMP'.*expected one of \['own'\]"):
        write_report([write_run(tmp_path, "a", evaluations(0.5))], tmp_path, hypotheses=["QMP > own"])


def test_metrics_are_those_asked_for(tmp_path):
    rows = [a | b for a, b in zip(evaluations(0.0, 1.0), evaluations(3.0, 5.0, metric="stages"), strict=True)]
    path = write_run(tmp_path, "a", rows)
    assert "<h3>eval/stages</h3>" not in write_report([path], tmp_path).read_text()
    text = write_report([path], tmp_path, metrics=["eval/stages", "eval/absent"]).read_text()
    assert re.findall("<h3>(eval/.*?)</h3>", text) == ["eval/stages"]


def test_the_command(tmp_path, monkeypatch, capsys):
    runs = arms(tmp_path / "runs", 1)
    words = [runs, "--out", tmp_path / "out", "--title", "Mine", "--hypotheses", "QMP > own"]
    monkeypatch.setattr(sys, "argv", ["report", *map(str, words)])
    runpy.run_module("qmp_collect.runs.report", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    assert "<h1>Mine</h1>" in (tmp_path / "out" / "index.html").read_text()


def test_the_command_of_the_package(tmp_path):
    with pytest.raises(SystemExit, match="qmp report: expected a run folder at least"):
        qmp(["report", str(tmp_path / "absent"), "--out", str(tmp_path / "out")])


def test_drawings_hold_means_intervals_and_every_run(tmp_path):
    for seed, ends in enumerate([(0.0, 0.2), (0.2, 0.4)], 1):
        write_run(tmp_path, f"{seed}", evaluations(*ends), seed=seed)
    write_run(tmp_path, "3", evaluations(0.0, 0.9), seed=3, done=False, total_timesteps=10)
    (tmp_path / "3" / "metrics.jsonl").write_text((tmp_path / "3" / "metrics.jsonl").read_text().split("\n")[0])
    (study,) = studies([load_run(path) for path in find_runs([tmp_path])])
    _, axes = figures.panel()
    figures.curves(axes, study, "eval/success")
    thin, mean = [line for line in axes.lines if line.get_linewidth() < 1], axes.lines[-1]
    assert [line.get_ydata().tolist() for line in thin] == [[0.0, 0.2], [0.2, 0.4], [0.0]]
    assert mean.get_label() == "own (2 runs)"
    assert mean.get_ydata() == pytest.approx([0.1, 0.3])
    corners = axes.collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(0.3 + 12.7062 * 0.1, abs=1e-3)


def test_mixtures_are_averaged_over_training_and_runs(tmp_path):
    (study,) = studies([load_run(path) for path in find_runs([arms(tmp_path, 2)])])
    own, qmp = study.arms
    assert [sharing.shares(arm) for arm in (own, qmp)] == [False, True]
    borders, values = sharing.mixtures(qmp, 4)
    assert borders.tolist() == [0, 10, 20, 30]  # no more parts than were logged
    assert values.shape == (2, 3, 2, 2)
    assert sharing.average_contribution(qmp) == pytest.approx(np.array([[0.0, 1 / 3], [1.75 / 3, 0.0]]))
    _, axes = figures.panel()
    figures.policies(axes, qmp, 1)
    assert axes.lines[-1].get_ydata() == pytest.approx([0.75, 0.75, 0.25])
    assert axes.lines[-1].get_xdata().tolist() == [5, 15, 25]
    _, axes = figures.panel()
    figures.foreign(axes, study, 0)
    assert axes.lines[-1].get_ydata() == pytest.approx([0.5, 0.5, 0.0])
    assert axes.lines[-1].get_label() == "QMP (2 runs)"


def test_sharing_early_and_late(tmp_path):
    for seed in (1, 2):
        shares = [0.9, 0.5 + 0.1 * seed, *[0.5] * 6, 0.2, 0.1 * seed]  # of foreign actions in ``left``, by tenth
        rows = mixed(evaluations(*[0.5] * 11), *([[1 - share, share], [0.25, 0.75]] for share in shares))
        write_run(tmp_path, f"{seed}", rows, seed=seed, switch="qmp")
    (study,) = studies([load_run(path) for path in find_runs([tmp_path])])
    left, right = sharing.table(study, ["left", "right"]).rows
    # means of .6 and .7, of .15 and .2, of their changes -.45 and -.5; t(0.975, 1) = 12.706 standard errors
    assert left[:5] == ["QMP: left", "2", "0.65 [0.01, 1.29]", "0.17 [-0.14, 0.49]", "-0.47 [-0.79, -0.16]"]
    assert left[5:] == ["0.49 [0.36, 0.62]", "0.250 [all equal]"]
    assert right[2:5] == ["0.250 [all equal]", "0.250 [all equal]", "+0.000 [all equal]"]
    assert right[6] == left[5]


def test_one_task_and_its_helper(tmp_path):
    write_run(tmp_path, "1", mixed(evaluations(*[0.5] * 11), *[[[0.4, 0.6]]] * 10), switch="qmp")
    (study,) = studies([load_run(path) for path in find_runs([tmp_path])])
    (row,) = sharing.table(study, ["left"]).rows
    assert (row[2], row[5:]) == ("0.600 [1 run]", ["0.600 [1 run]", ""])
    _, axes = figures.panel()
    figures.policies(axes, study.arms[0], 0, ["left"])
    assert [line.get_label() for line in axes.lines] == ["1: helper"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, which Debian has as a package of that name")
def test_a_browser_shows_it_in_the_light_and_in_the_dark(page, tmp_path):
    corners = []
    for name, options in (("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])):
        shot = tmp_path / f"{name}.png"
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
        command += [f"--user-data-dir={tmp_path / name}", "--window-size=1200,1800", f"--screenshot={shot}", *options]
        done = subprocess.run([*command, page.resolve().as_uri()], capture_output=True, text=True)
        assert "CONSOLE" not in done.stderr  # nothing was refused, nothing failed
        pixels = image.imread(shot)[..., :3]
        corners.append(pixels[-1, 0].mean())
        different = np.abs(pixels - pixels[-1, 0]).max(axis=2) > 0.2
        assert different.mean() > 0.01
        colors = {tuple(np.round(color * 255).astype(int)) for color in pixels[different][::7]}
        blue = (0x00, 0x72, 0xB2) if name == "light" else (0x4A, 0xA8, 0xE0)
        assert blue in colors  # lines have the colours of the page's style
    light, dark = corners
    assert light > 0.95
    assert dark < 0.15
