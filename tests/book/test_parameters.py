"""Every chapter runs in smoke with each of its parameters moved off its default."""

import shutil

import pytest
import toy

from gradleak import book

CHAPTERS = {chapter.name: chapter for chapter in book.chapters(toy.REPO)}
FEW = dict(seed=1, images=1, steps=1)
MOVED = {
    "theory": dict(FEW, network="mlp", examples=30, delta=1.5),
    "comparison": dict(FEW, network="mlp", train_steps=[0], defense="learned", strength=0.05,
                       mask_rate=0.25, restarts=2),
    "tables": dict(FEW, network="mlp", train_steps=[0], strength=0.05, mask_rate=0.25, restarts=2),
    "climb": dict(FEW, network="mlp", train_steps=[0], strength=0.05, mask_rate=0.25, restarts=2),
    "ats": dict(FEW, network="cnn", width=4, policy="3-3", other="15", train_steps=[0],
                slow_steps=[0, 3], restarts=2, candidates=1),
    "soteria": dict(FEW, network="lenet", rate=0.5, train_steps=[0], slow_steps=[3], restarts=2),
    "precode": dict(FEW, bottleneck=16, activation="ReLU", kl_weight=0.1, train_steps=[3],
                    later=[2], restarts=2),
    "prior": dict(FEW, network="mlp", scales=[0.2], learning=3, width=4, fitted=60, components=2,
                  missing=3),
    "learning_to_climb": dict(FEW, network="mlp", scales=[0.2], learning=3, width=4, stages=1,
                              teaching=3, fitted=60, components=2),
    "samples": dict(FEW, scale=0.5, learning=3, width=4, samples=2, moves=2),
    "cost": dict(FEW, scale=0.3),
}  # fmt: skip


@pytest.fixture
def here(tmp_path):
    """A clone that lacks the package, which is found where it is installed."""
    for name in ("_toc.yml", "notebooks", "book"):
        copy = shutil.copytree if (toy.REPO / name).is_dir() else shutil.copy
        copy(toy.REPO / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", CHAPTERS)
def test_each_parameter_can_be_moved(name):
    """The table moves all but those that every run is given, and the data set (below)."""
    own = set(book.parameters(CHAPTERS[name])) - {"profile", "device", "results", "dataset"}
    assert own == set(MOVED[name])
    defaults = {p.name: p.default for p in book.parameters(CHAPTERS[name]).values()}
    assert not [k for k, v in MOVED[name].items() if v == defaults[k]]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_it_runs_with_all_of_them_moved(name, here):
    path = book.run(name, "smoke", parameters={**MOVED[name], "dataset": "digits"}, home=here)
    assert path.is_file()
