"""What a model costs and how good it is: `counts` (parameters, FLOPs, memory), `scale`, `evaluation`, `machine`."""
