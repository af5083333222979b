"""Analyse a workdir from its checkpoints alone: python -m ncjax.analyze --workdir=out/digits."""

from absl import flags

from ncjax.command import run
from ncjax.errors import InputError

_WORKDIR = flags.DEFINE_string("workdir", "", "The workdir of a training run.")


def main(arguments: list[str]) -> None:
    """Recompute every metric from the checkpoints; tables and figures go to <workdir>/analysis."""
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


if __name__ == "__main__":
    run(main)
