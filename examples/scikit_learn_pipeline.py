"""Classify texts with scikit-learn: a grid search over layers, pooling and regularisation.

python examples/scikit_learn_pipeline.py MODEL FILE      # a file of lines "text <tab> label"
"""

import sys

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from biloom import BiLMTransformer

with open(sys.argv[2], encoding="utf-8") as file:
    rows = [line.rstrip("\n").rsplit("\t", 1) for line in file if line.strip()]
texts, labels = zip(*rows, strict=True)
train, test, train_labels, test_labels = train_test_split(texts, labels, random_state=1)
pipeline = Pipeline(
    [
        ("vectors", BiLMTransformer(sys.argv[1])),
        ("scale", StandardScaler()),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
choices = {
    "vectors__layers": ["concat", "mean", 0],
    "vectors__pooling": ["mean", "direction"],
    "classify__C": [0.01, 0.1],
}
search = GridSearchCV(pipeline, choices, cv=3).fit(train, train_labels)
print(f"best: {search.best_params_}")
print(f"accuracy: {search.score(test, test_labels):.3f}")
