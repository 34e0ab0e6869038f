"""report.html: the right numbers, nothing that runs or is fetched, readable by machines that read aloud."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from PIL import Image

from nnlite import metrics
from nnlite.data import Preprocessing
from nnlite.errors import DataError
from nnlite.transfer import FinetuneConfig, finetune
from nnlite.transfer.report import RunRecord, report_page, write_report
from nnlite.transfer.report.html import VOID, Html, element
from nnlite.transfer.report.sections import MOST_CLASSES, wilson
from nnlite.transfer.report.svg import ticks, whole_ticks

NAMES = ["red", "<script>alert(1)</script>", "blue \"sky\" & 'sea'"]
ELEMENTS = (
    "html head meta title style body header main section footer div p h1 h2 h3 dl dt dd ul li table caption "
    "thead tbody tr th td figure figcaption svg desc line text polyline circle rect span i b br img code "
    "details summary"
)


@dataclass
class Element:
    """An element of a parsed page."""

    name: str
    attributes: dict
    children: list = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name=None, /, **attributes):
        """Every element below of this name with these attributes, in order."""
        for child in self.children:
            if isinstance(child, Element):
                fits = all(child.attributes.get(k.rstrip("_")) == v for k, v in attributes.items())
                if (name is None or child.name == name) and fits:
                    yield child
                yield from child.all(name, **attributes)

    def one(self, name=None, /, **attributes):
        (found,) = self.all(name, **attributes)
        return found


class Tree(HTMLParser):
    """A strict parser: what is opened is closed, in order."""

    def __init__(self, page):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(page)
        self.close()
        assert self.open == [self.root], f"never closed: {[e.name for e in self.open[1:]]}"

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        new = Element(tag, dict(attrs))
        self.open[-1].children.append(new)
        if tag not in VOID:
            self.open.append(new)

    def handle_endtag(self, tag):
        assert self.open.pop().name == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parsed(page) -> Element:
    return Tree(page).root


def rows_of(table) -> list[list[str]]:
    return [[c.text for c in row.children] for row in table.one("tbody").all("tr")]


@pytest.fixture
def run(onnx_model, tmp_path):
    """The folder of a run with hostile names; class k is the mean of colour k, and one picture has EXIF."""
    folder, data = tmp_path / "run", tmp_path / "data"
    folder.mkdir()
    data.mkdir()
    nodes = [
        ("Conv", ["x", "w"], ["a"]), ("GlobalAveragePool", ["a"], ["p"]), ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "v"], ["y"], dict(transB=1)),
    ]  # fmt: skip
    eye = np.eye(3, dtype=np.float32)
    arrays = {"w": eye.reshape(3, 3, 1, 1), "v": 9 * eye}
    preprocessing = Preprocessing.named("unit", 32, crop=1.0)
    metadata = {"nnlite.classes": json.dumps(NAMES), "nnlite.preprocessing": preprocessing.to_json()}
    model = onnx_model(nodes, {"x": ["N", 3, 32, 32]}, ["y"], arrays, metadata=metadata)
    onnx.save(model, folder / "tuned.onnx")
    rng = np.random.default_rng(0)
    labels, scores, rows = rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40), []
    for n in range(40):
        path = data / f"{n}<img src=x onerror=alert(1)>.jpg"
        exif = Image.Exif()
        exif[0x010E] = "a secret place"
        image = Image.fromarray(rng.integers(0, 255, (40, 300, 3), np.uint8).astype(np.uint8))
        image.save(path, exif=exif)
        rows.append({
            "picture": str(path), "label": int(labels[n]), "predicted": int(scores[n].argmax()),
            "probability": float(scores[n].max()),
        })  # fmt: skip
    report = metrics.report(labels, scores, NAMES) | {
        "model": "first.onnx", "data": str(data), "train_pictures": 7, "split": "seed",
        "preprocessing": preprocessing.to_dict() | {"from": "as told"}, "predictions": rows,
        "seconds": {"tuning": 12.34, "total": 4000.0},
        "baselines": {
            "majority": {"accuracy": 0.25, "class": 1},
            "probe": {"accuracy": 0.5, "c": 1.0, "seconds": 0.4},
            "scratch": {"accuracy": 0.125, "epochs": 2, "presentations": 14, "seconds": 3.0},
        },
        "skipped": [{"path": "<b>bad.jpg", "reason": "cut & short"}],
    }  # fmt: skip
    history = [
        {
            "phase": phase, "epoch": epoch, "pictures": 7, "loss": 2.0 - 0.25 * n, "accuracy": 0.1 * n,
            "learning_rate": 0.001, "seconds": 1.5, "validation_loss": 2.5 - 0.25 * n,
            "validation_accuracy": 0.05 * n,
        }
        for n, (phase, epoch) in enumerate([("head", 0), ("head", 1), ("stages", 0), ("scratch", 0)])
    ]  # fmt: skip
    config = {"model": "first.onnx", "data": str(data), "out": "tuned.onnx", "unfreeze": "1", "seed": 5}
    environment = {"versions": {"nnlite": "1"}, "processor": "a <fast> one", "peak_memory": 123_000_000}
    (folder / "metrics.json").write_text(json.dumps(report))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "inputs.json").write_text(json.dumps({"model": "ab" * 32, "data": "cd" * 32}))
    return folder


@pytest.fixture
def changed(run):
    """``changed(metrics={...})``: the page after some keys of a file were replaced."""

    def write(**files):
        for name, keys in files.items():
            path = run / f"{name}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | keys))
        return parsed(report_page(RunRecord.read(run)))

    return write


@pytest.fixture
def page(run):
    return parsed(write_report(run).read_text())


# ------------------------------------------------------------------------------------- right numbers


def test_the_matrix_and_the_classes(page, run):
    known = json.loads((run / "metrics.json").read_text())
    matrix = rows_of(page.one("table", id="confusion-matrix"))
    assert [row[0] for row in matrix] == NAMES
    assert [[int(cell) for cell in row[1:]] for row in matrix] == known["confusion"]
    classes = rows_of(page.one("table", id="classes"))
    expected = [[f"{e[k]:.3f}" for k in ("precision", "recall", "f1")] for e in known["classes"]]
    assert [row[1:4] for row in classes[:3]] == expected
    assert [int(row[4]) for row in classes[:3]] == [e["support"] for e in known["classes"]]
    assert classes[3][:2] == ["macro average", f"{known['macro']['precision']:.3f}"]


def test_the_curves(page):
    history = rows_of(page.one("table", id="history"))
    assert [row[:4] for row in history] == [
        ["1", "head", "2.0000", "0.0000"],
        ["2", "head", "1.7500", "0.1000"],
        ["3", "stages", "1.5000", "0.2000"],
    ]
    chart = page.one("svg", id="loss-chart")
    said = [dot.one("title").text for dot in chart.all("circle")]
    assert said[:3] == [f"training, epoch {n + 1}: {2 - n / 4:g}" for n in range(3)]
    assert said[3:] == [f"held out, epoch {n + 1}: {2.5 - n / 4:g}" for n in range(3)]
    for line in chart.all("polyline"):  # falls by the same amount at each step
        points = np.array([pair.split(",") for pair in line.attributes["points"].split()], float)
        assert points.shape == (3, 2)
        steps = np.diff(points, axis=0)
        np.testing.assert_allclose(steps, steps[[0, 0]], atol=0.11)
        assert (steps > 0).all(), "to the right, and down"
    assert [t.text for t in chart.all("text", class_="name")] == ["epoch", "head", "stages"]
    assert "held out ends at 2" in chart.one("desc").text


def test_the_reliability_diagram(page, run):
    rows = json.loads((run / "metrics.json").read_text())["predictions"]
    sure, right = [r["probability"] for r in rows], [r["label"] == r["predicted"] for r in rows]
    found = metrics.reliability(sure, right)
    listed = rows_of(page.one("table", id="bins"))
    filled = [one for one in found.bins if one.count]
    assert [int(row[1]) for row in listed] == [one.count for one in filled]
    assert [row[3] for row in listed] == [f"{one.accuracy:.1%}" for one in filled]
    chart = page.one("svg", id="reliability-chart")
    heights = [float(bar.attributes["height"]) for bar in chart.all("rect")]
    scale = max(heights) / max(one.accuracy for one in filled)
    np.testing.assert_allclose(heights, [scale * one.accuracy for one in filled], atol=0.01)
    assert f"Expected calibration error {found.ece:.1%} over 15 bins" in page.one(id="calibration").text


def test_headline_baselines_and_origin(page, run):
    known = json.loads((run / "metrics.json").read_text())
    tiles = [tile.text for tile in page.all("div", class_="tile")]
    low, high = wilson(known["accuracy"], 40)
    assert tiles[0] == f"{known['accuracy']:.1%}accuracy{low:.0%} to {high:.0%} in 95 of 100 cases"
    assert tiles[-2:] == ["12.3 sto tune1 h 6 min with the rest", "123 MBmemoryat the worst moment"]
    beside = rows_of(page.one("table", id="baselines-table"))
    assert beside == [
        ["fine-tuned network", f"{known['accuracy']:.1%}", "12.3 s"],
        [f"always “{NAMES[1]}”", "25.0%", ""],
        ["logistic regression on frozen features", "50.0%", "0.4 s"],
        ["small network from scratch, 14 presentations", "12.5%", "3.0 s"],
    ]
    text = page.text
    for said in ("ab" * 32, "cd" * 32, "a <fast> one", "<b>bad.jpg: cut & short", "head for 2 epochs"):
        assert said in text
    assert "7 to train, 40 held out, by the seed 5" in text


def test_time_and_memory_against_the_plan(page, changed):
    facts = page.one("section", id="machine").text
    assert "planned" not in facts, "nothing was"
    memory = {
        "budget": 150 * 10**6, "predicted": 140 * 10**6, "phase": "stages", "measured": 133 * 10**6,
        "choices": ["one picture at a time"],
    }  # fmt: skip
    reason = "recipe: partial, for 7 training pictures: about 2.5 of the 5 minutes allowed"
    recipe = {"name": "partial", "unfreeze": "1", "reason": reason}
    text = changed(metrics={"memory": memory, "recipe": recipe}, config={"budget": 5.0}).text
    assert "Time plannedpartial, for 7 training pictures: about 2.5 of the 5 minutes allowed" in text
    assert (
        "Memory planned140 MB predicted of 150 MB allowed, at the stages; 133 MB measured, 95% of that; "
        "one picture at a time"
    ) in text


def test_wilson():
    # Wilson 1927 for 8 of 10 (as statsmodels' proportion_confint has it), and where nothing or all is right.
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 5)[0] == 0
    assert wilson(1.0, 5)[1] == 1


# -------------------------------------------------------------------------- nothing runs, nothing loads


def test_nothing_runs_and_nothing_is_fetched(page, run):
    raw = (run / "report.html").read_text()
    assert len(raw) < 1_000_000
    assert not list(page.all("script")) and "http://" not in raw and "https://" not in raw
    for one in page.all():
        assert not [name for name in one.attributes if name.startswith("on")]
        assert one.attributes.get("href") is None
        assert one.attributes.get("src", "data:").startswith("data:image/jpeg;base64,") or one.name != "img"
        assert one.name in ELEMENTS.split()
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "url(" not in page.one("style").text and "@import" not in page.one("style").text


def test_pictures_are_small_and_without_exif(page, run):
    images = list(page.all("img"))
    assert len(images) == 3 * 12, "six of each kind: picture, Grad-CAM, occlusion"
    for image in images:
        with Image.open(io.BytesIO(base64.b64decode(image.attributes["src"].split(",")[1]))) as picture:
            assert max(picture.size) <= 144 and len(picture.getexif()) == 0
    assert b"a secret place" in next((run.parent / "data").iterdir()).read_bytes()
    rows = json.loads((run / "metrics.json").read_text())["predictions"]
    wrong = sorted((r for r in rows if r["label"] != r["predicted"]), key=lambda r: -r["probability"])
    captions = [f.one("figcaption").text for f in page.all("figure", class_="card")]
    first = wrong[0]
    assert captions[0].startswith(f"{NAMES[first['predicted']]}, {first['probability']:.0%} sure: is ")
    assert captions[0].endswith(first["picture"].rpartition("/")[2])


def test_without_pictures(run):
    page = parsed(report_page(RunRecord.read(run), pictures=False))
    assert not list(page.all("img")) and not list(page.all(id="pictures"))
    assert rows_of(page.one("table", id="confusion-matrix"))


def test_what_is_gone_is_said(run):
    for picture in (run.parent / "data").iterdir():
        picture.unlink()
    assert (
        "the picture is no longer there" in parsed(report_page(RunRecord.read(run))).one(id="pictures").text
    )
    (run / "tuned.onnx").unlink()
    text = parsed(report_page(RunRecord.read(run))).one(id="pictures").text
    assert "Without maps: the model is no longer in the run folder" in text
    (run / "environment.json").unlink()
    (run / "inputs.json").unlink()
    assert "Peak memory" not in parsed(report_page(RunRecord.read(run), pictures=False)).text


# ------------------------------------------------------------------------------------- for everybody


def test_it_can_be_read_aloud_and_on_a_phone(page):
    assert page.one("html").attributes["lang"] == "en"
    assert "width=device-width" in page.one("meta", name="viewport").attributes["content"]
    assert len(list(page.all("h1"))) == len(list(page.all("main"))) == 1
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for one in page.all():
        for target in one.attributes.get("aria-labelledby", "").split():
            assert target in ids
    assert all(image.attributes["alt"] for image in page.all("img"))
    for table in page.all("table"):
        assert table.one("caption").text
        assert all(cell.attributes["scope"] in ("row", "col") for cell in table.all("th"))
    for chart in page.all("svg"):
        assert chart.attributes["role"] == "img"
        assert next(chart.all("title")).text and chart.one("desc").text
    assert "prefers-color-scheme: dark" in page.one("style").text


# ----------------------------------------------------------------------------------- other shapes of run


def test_many_classes_become_a_list(changed):
    count = MOST_CLASSES + 1
    labels = np.r_[np.arange(count), [3, 3, 3]]
    scores = np.eye(count)[np.r_[np.arange(count), [4, 4, 5]]]
    rows = [
        {"picture": "none.jpg", "label": int(y), "predicted": int(s.argmax()), "probability": 1.0}
        for y, s in zip(labels, scores, strict=True)
    ]
    names = [f"class {n}" for n in range(count)]
    figures = metrics.report(labels, scores, names) | {"predictions": rows}
    page = changed(metrics=figures)
    assert not list(page.all("table", id="confusion-matrix"))
    listed = rows_of(page.one("table", id="confusions"))
    assert listed == [["class 3", "class 4", "2", "50.0%"], ["class 3", "class 5", "1", "25.0%"]]


def test_labels_and_numbers(changed):
    figures = metrics.multilabel_report([[1, 0], [1, 1]], [[0.9, 0.2], [0.4, 0.8]], ["<a>", "b"])
    quality = {"name": "mean average precision", "value": figures["mean_average_precision"]}
    best = {"prior": {"name": "each <label>", "quality": 0.75}}
    page = changed(metrics=figures | {"task": "multi", "quality": quality, "baselines": best})
    assert [row[0] for row in rows_of(page.one("table", id="classes"))] == ["<a>", "b"]
    assert rows_of(page.one("table", id="baselines-table"))[1][:2] == ["each <label>", "0.750"]
    assert not list(page.all(id="confusion")) and not list(page.all("img"))
    figures = metrics.regression_report([[1.0], [2.0]], [[1.5], [2.0]], ["age"])
    page = changed(metrics=figures | {"task": "regression", "quality": {"name": "R²", "value": 0.5}})
    assert rows_of(page.one("table", id="classes")) == [["age", "0.25", "0.3536", "0.5"]]
    assert next(page.all("div", class_="tile")).text == "0.500R²"


def test_a_run_without_baselines_or_history(changed, run):
    (run / "history.jsonl").unlink()
    page = changed(metrics={"baselines": {}})
    assert not list(page.all(id="baselines")) and not list(page.all(id="curves"))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("metrics.json", None, "no metrics.json; give the folder of a finished run"),
        ("metrics.json", "{", r"metrics\.json: is damaged"),
        ("metrics.json", "[]", "not a table"),
        ("metrics.json", "{}", "damaged or of another version"),
        ("config.json", None, r"config\.json: cannot be read: No such file"),
        ("history.jsonl", '{"phase": 1}\n', "damaged or of another version .KeyError"),
        ("history.jsonl", "no json\n", r"history\.jsonl: is damaged"),
        ("metrics.json", b"\xff", "not text"),
    ],
)
def test_damaged_runs(run, name, content, match):
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=match):
        write_report(run)


# -------------------------------------------------------------------------------------------- pieces


def test_text_is_escaped_and_markup_is_not():
    assert element("p", "a < b & c") == "<p>a &lt; b &amp; c</p>"
    assert element("p", [element("b", "x"), None, "<"]) == "<p><b>x</b>&lt;</p>"
    assert element("img", alt="\"'<", class_="c", data_x=1.23456) == (
        '<img alt="&quot;&#x27;&lt;" class="c" data-x="1.235">'
    )
    assert element("td", Html("<i>")) == "<td><i></td>"
    assert element("td", title=None) == "<td></td>"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.52, 1.94, [0.5, 1, 1.5, 2]),
        (3.0, 3.0, [2.4, 2.6, 2.8, 3, 3.2, 3.4, 3.6]),
        (-1e-3, 1e-3, [-1e-3, -5e-4, 0, 5e-4, 1e-3]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_whole_ticks():
    assert whole_ticks(1, 3) == [1, 2, 3]
    assert whole_ticks(1, 28) == [5, 10, 15, 20, 25]


def test_pictures_in_an_array_are_found_again_in_the_split_of_the_run(network, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(24) % 2)
    config = FinetuneConfig(
        str(network), str(tmp_path / "set.npz"), str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"),
        recipe="probe", views=1, size=32, baselines=False, split_seed=3,
    )  # fmt: skip
    page = parsed((finetune(config).run_dir / "report.html").read_text())
    assert len([*page.all("figure", class_="card")]) >= 4
    assert "no longer there" not in page.text
