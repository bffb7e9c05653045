"""How good the answers are: the published metrics, as pure functions on host data.

| file | of task | metrics |
|---|---|---|
| `classification.py` | classify, pair | accuracy, precision, recall, F1, confusion matrix |
| `correlation.py` | regress | mean squared error, Pearson, Spearman |
| `entities.py` | tag | precision, recall and F1 of entities, accuracy of tags |
| `answers.py` | answer | exact match and F1 of SQuAD |
| `texts.py` | text2text | exact match, BLEU, ROUGE-L |

Each file has a `measure(gold, predicted, ...)` that returns what its task reports, by name; gold comes first.
Everything is a share between 0 and 1, but for correlations (-1 to 1), squared errors, and BLEU, which all the world
prints between 0 and 100. A rate whose denominator is 0 is 0, as in scikit-learn's `zero_division=0` and in conlleval; a
correlation that is not defined is NaN. Read first: `scores.py`.
"""
