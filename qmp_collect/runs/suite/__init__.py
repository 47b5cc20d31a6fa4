"""Many runs: plans of them, executors that make them on this machine or on a Slurm cluster, and how far they are.

``python -m qmp_collect.runs.suite --help``. A run is a folder and a command (`manifest.Run`), and idempotent: the same
command starts it, continues it, or does nothing when it is finished. So a suite keeps no state of its own; whatever is
stopped or killed, runs or executor, is simply run again. None of this imports torch: the runs do.
"""
