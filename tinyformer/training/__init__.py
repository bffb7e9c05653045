"""Training: settings, the optimiser, one step, the loop around it, and keeping everything safe.

Reading order: `config`, `schedule`, `optimizer`, `step`; then `files`, `tensorfile`, `checkpoint`, `runlog`, `rundir`,
`signals`, which keep a run safe; then `data`, `events`, `saving`, `loop` and `trainer`, whose `train` and `resume` are
the way in.
"""
