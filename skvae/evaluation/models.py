"""What models say of synthetic rows: are they as useful as real ones to train on, and can they be told from them?"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from skvae.evaluation.coding import Coded, compact, dense


def boosted(task: str, n_numbers: int, n_categories: int, seed: int) -> Any:
    """A `HistGradientBoosting` model that reads numbers beside codes of categories, with its defaults."""
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    is_code = np.arange(n_numbers + n_categories) >= n_numbers
    return kind(categorical_features=is_code if n_categories else None, random_state=seed)


def predictive_score(
    model: Any, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray, task: str
) -> float:
    """R2, or the AUC, on the test rows; 0.5 if y has a single class.

    Of more than two classes, the mean over those of the test rows of the AUC of one against the rest.
    """
    if task == "regression":
        return float(r2_score(y_test, model.fit(X, y).predict(X_test)))
    if len(np.unique(y)) < 2:
        return 0.5

    probability = model.fit(X, y).predict_proba(X_test)
    classes = list(model.classes_)
    scores = []
    for label in np.unique(y_test):
        # a class of all rows cannot be ranked
        if (y_test == label).all():
            continue

        # one that was not trained on is told at random
        score = 0.5
        if label in classes:
            score = roc_auc_score(y_test == label, probability[:, classes.index(label)])
        scores.append(score)
    return float(np.mean(scores)) if scores else 0.5


def split_target(rows: Coded, target_index: int, task: str) -> tuple[Coded, np.ndarray]:
    """`rows` without the target, and the target: a category or, for regression, a number (where it is there)."""
    if task == "regression":
        y = rows.numbers[:, target_index]
        kept = ~np.isnan(y)
        return Coded(np.delete(rows.numbers, target_index, 1)[kept], rows.codes[kept], rows.n_levels), y[kept]
    without = np.delete(rows.codes, target_index, 1)
    return Coded(rows.numbers, without, np.delete(rows.n_levels, target_index)), rows.codes[:, target_index]


def utility(rows: Coded, test: Coded, target_index: int, task: str, seed: int = 0) -> float:
    """Score on real test rows of boosted trees trained on `rows`, real or synthetic: see `predictive_score`.

    Parameters
    ----------
    rows, test : Coded
    target_index : int
        Of the target among the categories or, for regression, the numbers.
    task : {"classification", "regression"}
    seed : int, default=0
    """
    # what is asked is whether a model trained on new rows works on real ones
    features, y = split_target(rows, target_index, task)
    features_test, y_test = split_target(test, target_index, task)
    model = boosted(task, features.numbers.shape[1], features.codes.shape[1], seed)
    return predictive_score(model, compact(features), y, compact(features_test), y_test, task)


def cross_validated_auc(model: Any, X: np.ndarray, y: np.ndarray, seed: int, n_folds: int = 3) -> float:
    """Mean AUC over stratified folds."""
    scores = []
    for fit, held_out in StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(X, y):
        probability = clone(model).fit(X[fit], y[fit]).predict_proba(X[held_out])[:, 1]
        scores.append(roc_auc_score(y[held_out], probability))
    return float(np.mean(scores))


def detection(real: Coded, synthetic: Coded, seed: int = 0, max_rows: int = 20_000) -> tuple[float, float]:
    """Cross-validated AUC of telling real from synthetic rows, by a logistic model and by boosted trees; 0.5 is perfect.

    Both sides have the same number of rows, at most `max_rows` each: the AUC of trees rises with it.
    """
    rng = np.random.default_rng(seed)
    n = min(len(real.numbers), len(synthetic.numbers), max_rows)
    real, synthetic = real.at_most(n, rng), synthetic.at_most(n, rng)
    y = np.repeat([0, 1], n)

    # a straight boundary, and one of any shape
    logistic = LogisticRegression(C=1.0, max_iter=300)
    linear_rows = np.concatenate(dense(real, synthetic)).astype(np.float32)
    trees = boosted("classification", real.numbers.shape[1], real.codes.shape[1], seed)
    tree_rows = np.concatenate([compact(real), compact(synthetic)])
    return cross_validated_auc(logistic, linear_rows, y, seed), cross_validated_auc(trees, tree_rows, y, seed)
