"""Train the runs of a config: python -m ncjax.main --config=configs/digits.py [--workdir=...] [--config.key=value]."""

import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import FrozenConfigDict, config_flags

from ncjax.command import run
from ncjax.config import validate
from ncjax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="Config file, such as configs/digits.py.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where records, checkpoints and figures go; default out/<config's name>.")


def main(arguments: list[str]) -> None:
    """Train, or go on training, then summarise."""
    if len(arguments) > 1:
        raise InputError(f"unexpected argument {arguments[1]!r}: settings are written --config.key=value")
    settings = _settings()
    workdir = Path(_WORKDIR.value or default_workdir(flags.FLAGS["config"].config_filename))
    print(f"workdir  {workdir}", flush=True)
    reached = _train(settings, workdir)
    if reached < settings.epochs:
        print(f"stopped and saved at epoch {reached} of {settings.epochs}; the same command goes on from there")
        sys.exit(130)
    from ncjax.analysis.runset import load
    from ncjax.analysis.summary import summarise

    summarise(load(workdir), workdir)


def _settings() -> FrozenConfigDict:
    if _CONFIG.value is None:
        raise InputError("no config: add --config=configs/digits.py")
    try:
        return validate(_CONFIG.value)
    except OSError as error:  # a file that could not be read says so only when its content is asked for
        raise InputError(str(error).strip().splitlines()[-1].strip()) from error


def default_workdir(config_file: str) -> str:
    """out/<name> for configs/<name>.py, out/<name>-<variant> for configs/<name>.py:<variant>."""
    path, _, variant = config_file.partition(":")
    return os.path.join("out", "-".join(filter(None, (Path(path).stem, variant))))


def _train(settings, workdir: Path) -> int:
    if settings.deterministic:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    from ncjax.training import parallel  # jax starts here, after the flags that shape it
    from ncjax.training.train import train

    parallel.use_all_cores()
    parallel.keep_compilations()
    return train(settings, workdir)


if __name__ == "__main__":
    run(main)
