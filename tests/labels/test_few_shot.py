"""Classifiers from examples: prototypes, a linear probe, Tip-Adapter, and their files."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from vitsearch.arrays import unit_rows
from vitsearch.errors import ClassifierError, QueryError
from vitsearch.evaluation import load_trained
from vitsearch.labels import LinearClassifier, TipClassifier, prototype_classifier, tip_classifier
from vitsearch.labels.probe import STRENGTHS, probe_classifier

NAMES = ("ant", "bee", "cow")


def examples(
    a_class: int, seed: int = 0, spread: float = 0.5, dim: int = 12
) -> tuple[NDArray[np.float32], list[str]]:
    """Unit vectors around one centre a class, the same centres for every seed."""
    centres = np.random.default_rng(99).normal(size=(len(NAMES), dim))
    rng = np.random.default_rng(seed)
    rows = np.concatenate([centre + spread * rng.normal(size=(a_class, dim)) for centre in centres])
    return unit_rows(rows), [name for name in NAMES for _ in range(a_class)]


def accuracy(
    classifier: LinearClassifier | TipClassifier, vectors: NDArray[np.float32], truth: list[str]
) -> float:
    best = classifier.logits(vectors).argmax(axis=1)
    return float(
        np.mean(
            [classifier.classes[place] == label for place, label in zip(best, truth, strict=True)]
        )
    )


def test_prototypes_are_the_mean_vectors() -> None:
    vectors, truth = examples(2)
    classifier = prototype_classifier(vectors, truth, fingerprint="f")
    means = unit_rows(
        np.stack([vectors[:2].sum(axis=0), vectors[2:4].sum(axis=0), vectors[4:].sum(axis=0)])
    )
    np.testing.assert_allclose(classifier.weight, 20 * means, rtol=1e-5)
    assert (classifier.classes, classifier.fingerprint, classifier.activation) == (
        NAMES,
        "f",
        "softmax",
    )


@pytest.mark.slow
def test_the_order_of_the_examples_changes_nothing() -> None:
    vectors, truth = examples(6)
    mixed = np.random.default_rng(3).permutation(len(truth))
    for make in (prototype_classifier, probe_classifier):
        one, other = make(vectors, truth), make(vectors[mixed], [truth[i] for i in mixed])
        assert one.classes == other.classes
    np.testing.assert_allclose(
        prototype_classifier(vectors, truth).weight,
        prototype_classifier(vectors[mixed], [truth[i] for i in mixed]).weight,
        rtol=1e-4,
    )


@pytest.mark.slow
def test_more_examples_are_better_and_probabilities_are_true() -> None:
    seen, unseen = examples(40, 1, 1.2), examples(300, 2, 1.2)
    for classifier in (prototype_classifier(*seen), probe_classifier(*seen)):
        assert accuracy(classifier, *unseen) > 0.8
        confidence = float(classifier.predict_proba(unseen[0]).max(axis=1).mean())
        assert confidence == pytest.approx(accuracy(classifier, *unseen), abs=0.06)
    assert accuracy(prototype_classifier(*examples(1, 1, 1.2)), *unseen) < accuracy(
        prototype_classifier(*seen), *unseen
    )


@pytest.mark.slow
def test_the_probe_is_scikit_learns_logistic_regression_scaled() -> None:
    vectors, truth = examples(10, spread=1.5)
    classifier = probe_classifier(vectors, truth)
    same = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-5).fit(
            vectors.astype(np.float64), truth
        )
        ratio = classifier.weight / model.coef_
        same.append(float(ratio.std() / abs(ratio.mean())))
    assert min(same) < 1e-3
    two = probe_classifier(vectors[:20], truth[:20])
    assert (two.classes, two.weight.shape) == (("ant", "bee"), (2, 12))
    np.testing.assert_allclose(two.weight[0], -two.weight[1], rtol=1e-6)


def zero_shot() -> LinearClassifier:
    """Prompts that know the classes a little, and one more class."""
    vectors, _ = examples(1, 5, 1.5)
    rows = np.concatenate([vectors, unit_rows(np.random.default_rng(8).normal(size=(1, 12)))])
    return LinearClassifier(
        (*NAMES, "dog"), 10 * rows, np.zeros(4, dtype=np.float32), fingerprint="f"
    )


def test_tip_is_zero_shot_plus_a_cache() -> None:
    vectors, truth = examples(1)
    classifier = tip_classifier(zero_shot(), vectors, truth)
    assert (classifier.alpha, classifier.beta, classifier.scale) == (1.0, 5.5, 1.0)
    cache = np.zeros((len(truth), 4))
    cache[:, :3] = np.exp(-5.5 * (1 - vectors @ vectors.T))
    np.testing.assert_allclose(
        classifier.logits(vectors), zero_shot().logits(vectors) + cache, rtol=1e-4, atol=1e-5
    )
    scaled = classifier.scaled(0.5, 1.0)
    np.testing.assert_allclose(
        scaled.logits(vectors), 0.5 * classifier.logits(vectors) + 1, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(scaled.predict_proba(vectors).sum(axis=1), 1, atol=1e-6)


def test_tip_beats_zero_shot_and_keeps_its_other_classes() -> None:
    seen, unseen = examples(16, 1, 1.2), examples(300, 2, 1.2)
    classifier = tip_classifier(zero_shot(), *seen)
    assert accuracy(classifier, *unseen) > accuracy(zero_shot(), *unseen) + 0.05  # type: ignore[arg-type]
    assert classifier.classes == (*NAMES, "dog")


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    vectors, truth = examples(5)
    for made in (
        prototype_classifier(vectors, truth, fingerprint="abc"),
        tip_classifier(zero_shot(), vectors, truth),
    ):
        made.save(tmp_path / "model")
        found = load_trained(tmp_path / "model")
        assert (type(found), found.classes, found.activation, found.fingerprint) == (
            type(made),
            made.classes,
            made.activation,
            made.fingerprint,
        )
        np.testing.assert_array_equal(found.logits(vectors), made.logits(vectors))
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "classifier.json",
        "classifier.safetensors",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 9}, r"has format 9, newer than this vitsearch reads \(1\): upgrade vitsearch"),
        ({"classes": ["one"]}, "its numbers 'weight' have another shape than classes, dim"),
        ({"classes": "abc"}, r"is damaged \('classes' is of the wrong type\): train it again"),
        ({"kind": "forest"}, "it is of kind 'forest', not 'linear'"),
        ({"activation": "relu"}, r"\('activation' is of the wrong type\)"),
        ({"fingerprint": None}, r"\('fingerprint' is of the wrong type\)"),
    ],
)
def test_a_changed_classifier_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    prototype_classifier(*examples(2)).save(tmp_path)
    facts = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(facts | change))
    with pytest.raises(ClassifierError, match=words):
        load_trained(tmp_path)


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ClassifierError, match="there is no classifier in .*: train one with `vitsearch train`"
    ):
        load_trained(tmp_path / "none")
    made = prototype_classifier(*examples(2))
    made.save(tmp_path)
    whole = (tmp_path / "classifier.safetensors").read_bytes()
    for damaged in (whole[:-8], b"", b"\xff" * 40):
        (tmp_path / "classifier.safetensors").write_bytes(damaged)
        with pytest.raises(ClassifierError, match="is damaged"):
            load_trained(tmp_path)
    LinearClassifier(made.classes, made.weight * np.float32("nan"), made.bias).save(tmp_path)
    with pytest.raises(ClassifierError, match="its numbers 'weight' are not all finite"):
        load_trained(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ClassifierError, match="cannot write the classifier to"):
        made.save(tmp_path / "file")


def test_examples_that_are_too_few_are_refused() -> None:
    vectors, truth = examples(2)
    for make in (prototype_classifier, probe_classifier):
        with pytest.raises(
            QueryError,
            match="all examples are labelled 'ant': give examples of two classes or more",
        ):
            make(vectors[:2], truth[:2])
    with pytest.raises(
        QueryError, match="the class 'cow' has one example: a probe needs two of each"
    ):
        probe_classifier(vectors[:5], truth[:5])
    with pytest.raises(QueryError, match="photos are labelled emu"):
        tip_classifier(zero_shot(), vectors, ["emu", *truth[1:]])
