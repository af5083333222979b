"""The commands as a user types them, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import startup

ROOT = Path(__file__).parents[1]
QUICK = ["model.name=mlp", "epochs=3", "runs.permutations=2", "runs.rotations=2", "runs.seeds=2", "runs.jitters=2"]


def command(module, *arguments):
    return [sys.executable, "-m", module, *arguments]


def train_arguments(workdir, *changes, config="digits.py"):
    return [f"--config={ROOT}/configs/{config}", f"--workdir={workdir}", *(f"--config.{change}" for change in changes)]


def run(*arguments, cwd=ROOT):
    return subprocess.run(arguments, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("main") / "run"
    finished = run(*command("ncjax.main", *train_arguments(path, *QUICK)))
    assert finished.returncode == 0, finished.stderr
    return path, finished.stdout


def test_training_ends_with_table_sentence_and_figures(workdir):
    path, said = workdir
    assert "epoch 3/3" in said
    assert "permutation" in said
    assert "standard deviation" in said
    for line in said.splitlines():
        if line.startswith(("figure", "table")):
            assert Path(line.split()[1]).stat().st_size > 0
    assert json.loads((path / "config.json").read_text())["epochs"] == 3


def test_the_same_command_again_summarises_again(workdir):
    path, said = workdir
    again = run(*command("ncjax.main", *train_arguments(path, *QUICK)))
    assert again.returncode == 0
    assert again.stdout.split("family")[1] == said.split("family")[1]


def test_analyze_from_the_checkpoints_alone(workdir):
    path, _ = workdir
    finished = run(*command("ncjax.analyze", f"--workdir={path}"))
    assert finished.returncode == 0, finished.stderr
    assert (path / "analysis" / "figures" / "neural_collapse.png").exists()
    assert (path / "analysis" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.epoch=3"], "epoch"),
        (["--config.epochs=many"], "many"),
        (["--config.epochs=0"], "config.epochs is 0"),
        (["--config.model.name=resnet33"], "config.model.name"),
        (["--config.dataset.name=npz:/nowhere.npz"], "/nowhere.npz"),
        (["epochs=3"], "epochs=3"),
        (["--config.optimizer=3"], "not a dict"),
        (["--cofnig=3"], "cofnig"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, arguments, said):
    finished = run(*command("ncjax.main", *train_arguments(tmp_path / "run"), *arguments))
    assert finished.returncode not in (0, None)
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "run").exists()


def test_missing_config_and_missing_workdir():
    for module, said in (("ncjax.main", "--config=configs/digits.py"), ("ncjax.analyze", "--workdir=out/digits")):
        finished = run(*command(module))
        assert finished.returncode == 2
        assert said in finished.stderr
        assert "Traceback" not in finished.stderr
    finished = run(*command("ncjax.main", "--config=configs/nowhere.py"))
    assert finished.returncode != 0
    assert "nowhere.py" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("module", ["ncjax.main", "ncjax.analyze"])
def test_help_is_no_error(module):
    finished = run(*command(module, "--help"))
    assert finished.returncode == 0
    assert "--workdir" in finished.stdout


def test_a_second_start_compiles_nothing_again():
    cold, warm = startup.cold_and_warm([f"--config.{change}" for change in QUICK if not change.startswith("epochs")])
    assert cold.compiled > 10
    assert warm.compiled == 0
    assert warm.reused == cold.compiled + cold.reused


def test_default_workdir(tmp_path):
    finished = run(
        *command("ncjax.main", f"--config={ROOT}/configs/digits.py", *(f"--config.{c}" for c in QUICK)), cwd=tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / "digits" / "metrics.csv").exists()


def test_a_stopped_job_goes_on_and_ends_with_the_same_numbers(tmp_path):
    changes = [change for change in QUICK if not change.startswith("epochs")] + ["epochs=40", "checkpoint_epochs=0"]
    whole = run(*command("ncjax.main", *train_arguments(tmp_path / "whole", *changes)))
    assert whole.returncode == 0, whole.stderr
    arguments = command("ncjax.main", *train_arguments(tmp_path / "cut", *changes))
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        for line in process.stdout:
            if line.startswith("epoch  3/"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
        assert process.wait(timeout=120) == 130
    assert "stopped and saved at epoch" in rest
    resumed = run(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at step" in resumed.stdout
    assert (tmp_path / "cut" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()
