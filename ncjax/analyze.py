"""Analyse a workdir from its checkpoints alone: python -m ncjax.analyze --workdir=out/digits."""

import sys

from absl import app, flags, logging

from ncjax.errors import InputError

_WORKDIR = flags.DEFINE_string("workdir", "", "The workdir of a training run.")


def main(arguments: list[str]) -> None:
    """Recompute every metric from the checkpoints; tables and figures go to <workdir>/analysis."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a restore
    if len(arguments) > 1 or not _WORKDIR.value:
        raise InputError("which workdir? python -m ncjax.analyze --workdir=out/digits")
    from ncjax.analysis.runset import load
    from ncjax.analysis.summary import summarise
    from ncjax.training import parallel

    parallel.use_all_cores()
    runs = load(_WORKDIR.value)
    recomputed = runs.recompute()
    epochs = ", ".join(map(str, recomputed.evaluated.values()))
    print(f"recomputed from the checkpoints of epochs {epochs} (TPT start and gain are as coarse as these)\n")
    summarise(recomputed, runs.workdir / "analysis")


def run() -> None:
    """The command: one clear line for what a user can mend, exit status 2."""
    try:
        app.run(main)
    except InputError as error:
        print(f"ncjax: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
