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
_PLAN = flags.DEFINE_bool("plan", False, "Compile, measure a few steps and print what the job takes; train nothing.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes: TPU pod, Slurm, ...; elsewhere with the next three flags."
)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(arguments: list[str]) -> None:
    """Train, or go on training, then summarise."""
    if len(arguments) > 1:
        raise InputError(f"unexpected argument {arguments[1]!r}: settings are written --config.key=value")
    settings = _settings()
    _start_jax(settings)
    from ncjax.training import hosts

    if _PLAN.value:
        from ncjax.training.plan import plan

        lines = plan(settings)
        if hosts.is_first():
            print("\n".join(f"{what:22}{how_much}" for what, how_much in lines))
        return
    from ncjax.training.train import train

    workdir = Path(_WORKDIR.value or default_workdir(flags.FLAGS["config"].config_filename))
    if hosts.is_first():
        print(f"workdir  {workdir}", flush=True)
    reached = train(settings, workdir)
    if hosts.is_first():
        _finish(settings, workdir, reached)
    if reached < settings.epochs:
        sys.exit(130)


def _finish(settings: FrozenConfigDict, workdir: Path, reached: int) -> None:
    if reached < settings.epochs:
        print(f"stopped and saved at epoch {reached} of {settings.epochs}; the same command goes on from there")
        return
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


def _start_jax(settings: FrozenConfigDict) -> None:
    """Everything that must be set before jax looks for devices."""
    if settings.deterministic:
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    from ncjax.training import hosts, parallel

    parallel.use_all_cores()
    parallel.keep_compilations()
    if _DISTRIBUTED.value:
        hosts.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    elif _COORDINATOR.value or _NUM_PROCESSES.value is not None or _PROCESS_ID.value is not None:
        raise InputError("--coordinator, --num_processes and --process_id need --distributed")


if __name__ == "__main__":
    run(main)
