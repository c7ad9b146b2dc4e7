import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid

import gradleak as gl
from gradleak.defenses.ats import ATS
from gradleak.defenses.ats_operations import OPERATIONS
from gradleak.experiment import ats_search


@pytest.fixture(scope="module")
def digits():
    return gl.data.load("digits", "train")


@pytest.fixture(scope="module")
def model():
    return gl.models.cnn((1, 8, 8), 10)


def test_candidates_are_policies_that_exist():
    found = ats_search.candidates(300, seed=3)
    assert len(set(found)) == 300
    used = {i for p in found for i in ATS(p).policies[0]}
    assert used == set(range(50))
    grey = {i for p in ats_search.candidates(300, seed=3, channels=1) for i in ATS(p).policies[0]}
    assert not any(OPERATIONS[i].name == "color" for i in grey)


def test_privacy_score_equals_a_loop(model, digits):
    """One mix at a time with autograd and SciPy's trapezoids."""
    few, policy = digits.take([4, 9]), "21-13"
    noise = torch.rand(few.shape, generator=ats_search.generator(ats_search.SEARCH, 0, 1))
    areas = []
    for k, index in enumerate(few.index):
        seen = ATS(policy)(few.x[k : k + 1], [(0, index)])

        def slopes(x, k=k):
            loss = F.cross_entropy(model(x), few.y[k : k + 1])
            return [v.flatten() for v in torch.autograd.grad(loss, list(model.parameters()))]

        alike = []
        for i in range(21):
            pairs = zip(slopes(i / 20 * seen + (1 - i / 20) * noise), slopes(seen), strict=True)
            alike.append(np.mean([torch.cosine_similarity(a, b, dim=0).item() for a, b in pairs]))
        areas.append(trapezoid(alike, dx=0.05))
    assert ats_search.privacy_score(model, policy, few) == pytest.approx(np.mean(areas), rel=1e-4)
    assert ats_search.privacy_score(model, policy, few) < 1


def test_accuracy_score_equals_a_loop(model, digits):
    some, policy = digits.take(range(12)), "7"
    rows = []
    for k, index in enumerate(some.index):
        seen = ATS(policy)(some.x[k : k + 1], [(0, index)]).requires_grad_()
        rows.append(torch.autograd.grad(model(seen).sum(), seen)[0].flatten().double())
    rows = torch.stack(rows)
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    v = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + 1e-5
    expected = -(v.log() + 1 / v).sum().item()
    assert ats_search.accuracy_score(model, policy, some) == pytest.approx(expected, rel=1e-2)


def test_images_that_look_alike_score_low(model, digits):
    """The more the network confuses images, the lower the score."""
    same = digits.take([3] * 12)
    assert ats_search.accuracy_score(model, "19", same) < ats_search.accuracy_score(
        model, "19", digits.take(range(12))
    )


def test_a_search_goes_on_where_it_was(model, digits, tmp_path, monkeypatch):
    records, policies = (
        gl.experiment.Records(tmp_path, "search"),
        ats_search.candidates(4, channels=1),
    )
    options = dict(private=2, runs=2, each=10)
    first = ats_search.search(model, policies[:2], digits, records, **options)
    monkeypatch.setattr(ats_search, "privacy_score", lambda *_: pytest.fail("was there already"))
    pd.testing.assert_frame_equal(
        ats_search.search(model, policies[:2], digits, records, **options), first
    )
    monkeypatch.undo()
    assert (
        ats_search.search(model, policies, digits, records, **options).policy.tolist() == policies
    )
    with pytest.raises(ValueError, match=r"5 \+ 10 x 1000 images are needed"):
        ats_search.search(model, policies, digits, records, each=1000)


def test_selection_keeps_what_promises_accuracy():
    table = pd.DataFrame({"policy": list("abc"), "privacy": [3, 1, 2], "accuracy": [-80, -90, -84]})
    assert ats_search.selected(table).policy.tolist() == ["c", "a"]
