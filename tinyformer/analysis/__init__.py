"""What a model costs, how good it is and what it sees.

`counts` (parameters, FLOPs, memory), `scale`, `evaluation`, `drawing`, `inspection`, `machine`.
"""
