"""Records the trainings of other people's trainers while they run: lerobot, OpenPI, RLinf (docs/callbacks.md).

    from mlflow_project.callbacks import lerobot

    lerobot.track()

before that trainer's own ``train()`` or ``main()``; or, in place of it, ``python -m mlflow_project.callbacks.lerobot``
with the arguments of ``lerobot-train``. `openpi` and `rlinf` are the same for theirs.

This room runs in the trainer's interpreter, which need not have MLflow: it imports the standard library and what the
trainer itself has imported. The trainer's process writes the journal; a process of its own (`forward`) uploads it.
"""
