"""Floor 7: what people type. One small file per verb; each imports its room inside `run`, so that help stays fast.

Comes in: words from the shell. Goes out: an exit code, data on stdout, progress and errors on stderr.
Decided here: the verbs, which config each takes, how an error looks, the exit codes of a process.
Not decided here: what a verb does. A verb module has `CONFIG` + `run(config) -> int`, or
`SUBCOMMANDS = {name: (config class, run, one-line help)}`. The tests that show it best: `tests/cli/test_main.py`.
"""
