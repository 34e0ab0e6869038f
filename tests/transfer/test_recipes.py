"""What a run goes through, and what the rules of training do."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import nnlite as nl
from nnlite import nn
from nnlite import onnx as nx
from nnlite.data import ImageFolder
from nnlite.errors import ConfigError
from nnlite.optim import SGD
from nnlite.transfer import Callback, FinetuneConfig, compare, finetune, logistic, replace_head, types_for
from nnlite.transfer.job import set_aside
from nnlite.transfer.memory_plan import Holding, MemoryPlan
from nnlite.transfer.recipes import Recipe, Situation, choose_recipe, depths, names
from nnlite.transfer.training import Phase, Rules


class Listener(Callback):
    def __init__(self):
        self.said = []

    def on_message(self, text):
        self.said.append(text)


@pytest.fixture
def config(network, few_pictures, tmp_path):
    return FinetuneConfig(
        str(network), str(few_pictures), str(tmp_path / "tuned.onnx"), run_dir=str(tmp_path / "run"),
        head_epochs=3, epochs=3, views=2, batch_size=4, size=32, baselines=False, workers=0,
    )  # fmt: skip


def phases(result):
    found = {}
    for record in result.history:
        found[record.phase] = found.get(record.phase, 0) + 1
    return found


# ------------------------------------------------------------------------------- recipes


def test_the_probe_is_the_baseline_written_into_the_file(config):
    result = finetune(replace(config, recipe="probe", baselines=True))
    assert result.history[0].phase == "scratch"
    report = result.metrics
    assert report["accuracy"] == report["baselines"]["probe"]["accuracy"]
    assert report["recipe"]["name"] == "probe"
    # The very solution: features of the network as it was, and scikit-learn's convention of C.
    tuned = nx.load(result.out).state_dict()
    before = nx.load(config.model).state_dict()
    changed = {k for k in before if not np.array_equal(before[k], tuned[k])}
    assert changed == {"v", "b"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(recipe="partial"), {"head": 3, "stages": 3}),
        (dict(recipe="full"), {"head": 3, "stages": 3}),
        (dict(recipe="gradual"), {"head": 3, "stages 1": 1, "stages 2": 1, "stages 3": 1}),
        (dict(recipe="gradual", unfreeze="2"), {"head": 3, "stages 1": 2, "stages 2": 1}),
        (dict(recipe="gradual", unfreeze="1"), {"head": 3, "stages": 3}),
        (dict(unfreeze="none"), {"head": 3}),
        (dict(recipe="partial", epochs=0), {"head": 3}),
    ],
)
def test_phases_of_a_recipe(config, options, expected):
    result = finetune(replace(config, **options))
    assert phases(result) == expected
    stored = json.loads((result.run_dir / "config.json").read_text())["resolved_recipe"]
    assert stored["name"] == options.get("recipe", "explicit")


def test_gradual_unfreezing_changes_one_stage_more_at_a_time(config):
    states = {}

    class Watch(Callback):
        def on_start(self, job):
            self.job = job
            states["start"] = job.module.state_dict()

        def on_epoch(self, record):
            states[record.phase] = self.job.module.state_dict()

    finetune(replace(config, recipe="gradual"), callbacks=[Watch()])
    order, changed = list(states), []
    for before, after in pairwise(order):
        changed.append({k for k in states[before] if not np.array_equal(states[before][k], states[after][k])})
    assert changed == [{"v", "b"}, {"v", "b", "w2"}, {"v", "b", "w2", "w1"}, {"v", "b", "w2", "w1", "w0"}]


def situation(network, pictures, classes=3, task="single"):
    module, head = replace_head(nx.load(network), 3)
    module.input_sizes = ((None, 3, None, None),)
    return Situation(module, types_for(module, (32, 32)), head, task, pictures, classes)


@pytest.mark.parametrize(
    ("options", "pictures", "name", "said"),
    [
        ({}, 9, "probe", "recipe: probe, for only 3.0 training pictures a class"),
        ({}, 18, "partial", "recipe: partial, for 18 training pictures, 6 a class"),
        ({}, 30_000, "full", "recipe: full, for 30000 training pictures, 10000 a class"),
        (dict(budget=1e6), 30_000, "full", "minutes allowed"),
        (dict(budget=1e-9), 30_000, "probe", "of the 1e-09 minutes allowed"),
        (dict(recipe="full"), 9, "full", "as told"),
        (dict(unfreeze="2"), 9, "explicit", "unfreeze 2, as told"),
    ],
)
def test_auto_decides_and_says_why(network, options, pictures, name, said):
    recipe = choose_recipe(FinetuneConfig("m", "d", **options), situation(network, pictures))
    assert recipe.name == name
    assert said in recipe.reason
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_what_no_probe_can_solve(network):
    assert choose_recipe(FinetuneConfig("m", "d"), situation(network, 1, task="multi")).name == "partial"
    with pytest.raises(ConfigError, match="recipe='probe' needs one class per picture and a linear head"):
        choose_recipe(FinetuneConfig("m", "d", recipe="probe"), situation(network, 9, task="regression"))


@pytest.mark.parametrize(
    ("recipe", "unfreeze"), [("probe", "1"), ("full", "2"), ("partial", "none"), ("gradual", "none")]
)
def test_contradictions(network, recipe, unfreeze):
    config = FinetuneConfig("m", "d", recipe=recipe, unfreeze=unfreeze)
    with pytest.raises(ConfigError, match=f"unfreeze='{unfreeze}' contradicts recipe='{recipe}'"):
        choose_recipe(config, situation(network, 100))


def test_earlier_stages_learn_more_slowly(network, config):
    at = situation(network, 9)
    by_name = {value.name: depth for value, depth in depths(at.module, at.types, at.head).items()}
    assert {name: by_name[name] for name in ("w0", "w1", "w2")} == {"w0": 2, "w1": 1, "w2": 0}
    rates = []

    class Watch(Callback):
        def on_step(self, step):
            rates.append(step.phase)

    finetune(replace(config, recipe="full", epochs=1), callbacks=[Watch()])
    assert set(rates) == {"head", "stages"}
    assert names(Recipe("gradual", "2", "").stretches(config, 3)) == ["head", "stages 1", "stages 2"]


def test_batch_normalisation_stays_as_it_is_unless_told(mobilenet_path, config):
    before = nx.load(mobilenet_path).state_dict()
    for trained in (False, True):
        run_dir = str(Path(config.out).parent / f"run{trained}")
        options = replace(
            config, model=str(mobilenet_path), size=64, recipe="partial", epochs=1, head_epochs=1,
            train_batch_norm=trained, run_dir=run_dir,
        )  # fmt: skip
        after = nx.load(finetune(options).out).state_dict()
        changed = {k for k in before if k in after and before[k].shape == after[k].shape}
        changed = {k for k in changed if not np.array_equal(before[k], after[k])}
        norms = {name for name in changed if before[name].ndim == 1}
        assert bool(norms) == trained
        assert any("running" in name for name in norms) == trained
        assert all(int(name.split(".")[1]) >= 14 for name in norms), "the last stage alone"


# ------------------------------------------------------------------------------- rules


X = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0])


def learn(rules, size=12, epochs=2, lr=0.5, monitor=None):
    nl.manual_seed(0)
    module = nn.Linear(3, 2)
    start = module.state_dict()
    batches = [(X[i : i + size], Y[i : i + size]) for i in range(0, 12, size)]
    anchors = {module.weight: start["weight"]}
    phase = Phase(
        "p", module, SGD(module.parameters(), lr=lr), epochs, len(batches), lambda e, first: batches[first:],
        monitor=None if monitor is None else lambda: monitor(module), rules=rules, anchors=anchors,
    )  # fmt: skip
    records = []
    phase.run(records.append)
    return start, module.state_dict(), records


def test_accumulated_gradients_are_those_of_one_large_batch():
    _, whole, records = learn(Rules())
    _, parts, more = learn(Rules(accumulate=3), size=4)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-6)
    assert [r.loss for r in more] == pytest.approx([r.loss for r in records], rel=1e-5)
    _, uneven, _ = learn(Rules(accumulate=4), size=5)  # 5, 5 and 2 pictures
    for name in whole:
        np.testing.assert_allclose(uneven[name], whole[name], rtol=1e-5, atol=1e-6)


def test_clipping_limits_a_step():
    start, free, _ = learn(Rules(), epochs=1)
    _, clipped, _ = learn(Rules(clip=1e-3), epochs=1)
    steps = [
        np.concatenate([(end[n] - start[n]).ravel() for n in ("weight", "bias")]) for end in (free, clipped)
    ]
    assert np.linalg.norm(steps[1]) == pytest.approx(0.5 * 1e-3, rel=1e-2)
    assert steps[0] @ steps[1] == pytest.approx(np.linalg.norm(steps[0]) * np.linalg.norm(steps[1]), rel=1e-4)


def test_pulled_back_to_the_start():
    """One step from the start itself is not pulled; the second one is, by lr · l2_sp · (w - w0)."""
    start, one, _ = learn(Rules(), epochs=1)
    _, same, _ = learn(Rules(l2_sp=0.3), epochs=1)
    np.testing.assert_array_equal(one["weight"], same["weight"])
    ends = [learn(Rules(l2_sp=s), epochs=6)[1]["weight"] for s in (0, 0.5)]
    distance = [np.abs(end - start["weight"]).sum() for end in ends]
    assert distance[1] < 0.9 * distance[0]
    biases = [learn(Rules(l2_sp=s), epochs=3)[1]["bias"] for s in (0, 0.5)]
    assert not np.array_equal(*biases), "the bias moves freely, and with other weights elsewhere"


def test_the_average_is_what_is_kept():
    start, last, _ = learn(Rules(), epochs=1)
    _, kept, _ = learn(Rules(ema=0.75), epochs=1)
    for name in start:
        np.testing.assert_allclose(kept[name], 0.75 * start[name] + 0.25 * last[name], rtol=1e-5, atol=1e-6)


def test_patience_ends_a_phase_and_returns_to_the_best():
    losses, states = iter([3.0, 1.0, 2.0, 1.5, 0.1]), []

    def monitor(module):
        states.append(module.state_dict())
        return next(losses)

    _, kept, records = learn(Rules(patience=2), epochs=9, monitor=monitor)
    assert [r.monitor_loss for r in records] == [3.0, 1.0, 2.0, 1.5]
    np.testing.assert_array_equal(kept["weight"], states[1]["weight"])


def test_what_is_set_aside_is_part_of_training_alone(config, few_pictures):
    folder = ImageFolder.open(few_pictures)
    train, aside = set_aside(folder.train, replace(config, patience=1, set_aside=0.3))
    assert len(train) == 12 and len(aside) == 6
    assert {s.path for s in train} | {s.path for s in aside} == {s.path for s in folder.train}
    assert not {s.path for s in aside} & {s.path for s in folder.validation}
    assert {s.label for s in aside} == {0, 1, 2}
    result = finetune(replace(config, patience=1, set_aside=0.3, recipe="full", baselines=True))
    assert all(record.pictures == 12 for record in result.history if record.phase != "scratch")
    assert all(record.monitor_loss > 0 for record in result.history if record.phase != "scratch")
    assert result.metrics["train_pictures"] == 18
    alone = [folder.train[i] for i in (0, 6, 12)]
    with pytest.raises(ConfigError, match="patience=1, calibrate=False: no class has a second picture"):
        set_aside(alone, replace(config, patience=1))


def test_logistic_regression_with_the_penalty_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle here")
    x = np.random.default_rng(1).standard_normal((60, 5))
    y = np.random.default_rng(2).integers(0, 3, 60)
    own = logistic.fit(x, y, 3)
    other = sklearn.LogisticRegression(C=own.c, tol=1e-10, max_iter=10_000)
    scale = float(np.sqrt(((x - x.mean(0)) ** 2).mean()))
    other.fit((x - x.mean(0)) / scale, y)
    np.testing.assert_allclose(own.weight * scale, other.coef_, atol=1e-4)


def test_same_bits_for_any_number_of_threads_and_workers(config, tmp_path):
    before, files = nl.get_num_threads(), []
    try:
        for threads, workers in ((1, 0), (2, 1), (3, 4)):
            nl.set_num_threads(threads)
            folder = tmp_path / str(threads)
            own = replace(
                config, recipe="full", cache="off", out=str(tmp_path / f"{threads}.onnx"), workers=workers,
                run_dir=str(folder), augment="strong",
            )  # fmt: skip
            files.append(finetune(own).out.read_bytes())
    finally:
        nl.set_num_threads(before)
    assert files[0] == files[1] == files[2]


def test_a_comparison_without_the_network_that_memory_has_no_room_for(config, monkeypatch):
    plan = MemoryPlan(10**9, 10**8, "stages", (), Holding(scratch=False))
    monkeypatch.setattr("nnlite.transfer.job.memory_plan_for", lambda _, config: (config, plan))
    told = replace(config, memory="1GB", baselines=True, epochs=1, head_epochs=1)
    assert list(compare(told).metrics["compare"]) == ["majority", "probe", "partial", "full"]
