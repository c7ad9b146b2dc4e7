"""What the paper's comparison must have right before any attack runs."""

import pytest
from toy import REPO

import gradleak as gl
from gradleak.experiment.page import defaults

SIZES = dict(dataset="digits", images=2, tuning=2, shown=1, steps=2, restarts=1, weights=[1.0])


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    own = dict(device="cpu", train_steps=[1, 2], network="mlp", mask_rate=0.25,
               results=str(tmp_path_factory.mktemp("results")))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPO / "notebooks")
        values = defaults("comparison") | own
        return gl.experiment.Comparison(gl.experiment.page("comparison", {"smoke": SIZES}, values))


def test_bayes_believes_the_true_defense(paper):
    for scale in (0.1, 2.0):
        for name, truth in paper.defenses(scale).items():
            assert paper.beliefs(name, scale)["Bayes"] == truth


def test_equal_beliefs_are_one_computation_under_two_names(paper):
    named = {}
    for cell in paper.cells():
        trial = paper.trial(paper.page.evaluated, **cell, weight=1.0)
        same = tuple(trial.row_id(i) for i in paper.page.evaluated.index)
        named.setdefault(same, set()).add((cell["defense"], cell["adversary"]))
        assert {k: trial.labels[k] for k in cell} == cell
    twins = [names for names in named.values() if len(names) > 1]
    assert twins == [
        {("gaussian", "Bayes"), ("gaussian", "L2")},
        {("laplace", "Bayes"), ("laplace", "L1")},
        {("masked_gaussian", "Bayes"), ("masked_gaussian", "L2, mask")},
        {("masked_laplace", "Bayes"), ("masked_laplace", "L1, mask")},
    ]


def test_networks_of_every_scale_are_trained_as_far_as_they_are_attacked(paper):
    assert paper.early == 2
    known = {gl.identity.digest(paper.network("gaussian", s, t)) for s in (0.1, 2) for t in (1, 2)}
    assert len(known) == 4
    assert paper.network("gaussian", 2, 0) is paper.network("laplace", 0.1, 0)


def test_only_the_asked_adversaries_are_in_cells(paper):
    cells = paper.cells(["Bayes", "L2, mask"], train_step=1)
    assert len(cells) == 5 + 2
    assert all(cell["train_step"] == 1 for cell in cells)
