"""What a model costs and how good it is: `counts` (parameters, FLOPs, memory), `scale` (of published models), `evaluation`, `machine`."""
