"""Several processes: real ones, started as a user starts them, each with a workdir of its own that only the first uses.

Runs are computed on one device each, so the numbers are the same bits on every mesh that has runs alone. A single
device differs by rounding: XLA compiles the same program without the mesh.
"""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

import ncjax
from ncjax.store.checkpoint import Checkpoints

from .conftest import make_split

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "model.name": "mlp",
    "epochs": 4,
    "batch_size": 16,
    "checkpoint_epochs": 2,
    "dataset.train_per_class": 0,
    "runs.permutations": 3,
    "runs.rotations": 0,
    "runs.seeds": 2,
    "runs.repeats": 0,
    "runs.jitters": 0,
}
STEPS = 3  # of an epoch
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hosts")
    write_data(path / "tiny.npz")
    return path


def write_data(path, test_seed=1):
    train, test = make_split(48), make_split(30, seed=test_seed)
    arrays = {"train_images": train.images, "train_labels": train.labels}
    np.savez(path, **arrays, test_images=test.images, test_labels=test.labels)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("localhost", 0))
        return opened.getsockname()[1]


def start(command: list[str], count: int, devices: int, folder: Path, **variables) -> list[subprocess.Popen]:
    """`command` in `count` processes; {index} in it and in `variables` becomes the number of the process."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    return [
        subprocess.Popen(
            [part.replace("{index}", str(index)) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment | {name: value.replace("{index}", str(index)) for name, value in variables.items()},
        )
        for index in range(count)
    ]


def training(folder: Path, workdir: str, count: int, **changes) -> list[str]:
    settings = SETTINGS | {"dataset.name": f"npz:{folder}/tiny.npz"} | changes
    return [
        *(sys.executable, "-m", "ncjax.main", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}"),
        *(f"--config.{key}={value}" for key, value in settings.items()),
        *("--distributed", f"--coordinator=localhost:{free_port()}"),
        *(f"--num_processes={count}", "--process_id={index}"),
    ]


def finish(processes, code=0) -> list[str]:
    """What each said; all must end with `code`."""
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return [out + err for out, err in said]


def train(folder: Path, name: str, count: int, devices: int, **changes) -> Path:
    """A workdir trained to the end by `count` processes of `devices` devices."""
    finish(start(training(folder, f"{folder}/{name}-{{index}}", count, **changes), count, devices, folder))
    assert [path.name for path in folder.glob(f"{name}-*")] == [f"{name}-0"]  # the others wrote nothing
    return folder / f"{name}-0"


@pytest.fixture(scope="module")
def four_devices(folder):
    return train(folder, "whole", 1, 4)


def values(workdir) -> np.ndarray:
    with (workdir / "metrics.csv").open() as file:
        return np.array([float(row["value"]) for row in csv.DictReader(file)])


def assert_same(one: Path, other: Path, rtol=0.0, atol=0.0):
    np.testing.assert_allclose(values(one), values(other), rtol=rtol, atol=atol)
    states = []
    for workdir in (one, other):
        runs = ncjax.load(workdir)
        with Checkpoints(workdir) as checkpoints:
            assert checkpoints.steps() == [2 * STEPS, 4 * STEPS]
        states.append(runs.restore(4 * STEPS))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), *states)


@pytest.mark.parametrize(("count", "devices"), [(2, 2), (4, 1)])
def test_processes_give_the_bits_of_one_process(folder, four_devices, count, devices):
    assert_same(train(folder, f"shape{count}", count, devices), four_devices)


def test_one_device_gives_the_same_numbers(folder, four_devices):
    assert_same(train(folder, "one", 1, 1), four_devices, rtol=2e-5, atol=2e-6)


def test_a_batch_over_all_devices_of_two_processes(folder, four_devices):
    spread = train(folder, "batch", 2, 2, **{"mesh.runs": 1, "mesh.data": 4})
    assert_same(spread, four_devices, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("count", "devices"), [(2, 2), (1, 2)])
def test_a_checkpoint_goes_on_with_another_shape(folder, four_devices, count, devices):
    name = f"resumed{count}"
    shutil.copytree(four_devices, folder / f"{name}-0")
    with Checkpoints(folder / f"{name}-0") as checkpoints:
        checkpoints.discard_after(2 * STEPS)
    assert_same(train(folder, name, count, devices), four_devices)


def test_a_signal_to_one_process_stops_and_saves_all(folder):
    processes = start(training(folder, f"{folder}/stop-{{index}}", 2, epochs=100_000), 2, 1, folder)
    for line in processes[0].stdout:
        if line.startswith("epoch"):
            processes[1].send_signal(signal.SIGTERM)
            break
    said = finish(processes, code=130)
    assert "stopped and saved at epoch" in said[0]
    with Checkpoints(folder / "stop-0") as checkpoints:
        assert checkpoints.steps()


def test_what_process_0_refuses_all_refuse(folder, four_devices):
    command = training(folder, four_devices, 2, **{"optimizer.momentum": 0.8})
    for said in finish(start(command, 2, 1, folder), code=2):
        assert "optimizer.momentum: 0.9 there, 0.8 here" in said
        assert "Traceback" not in said


def test_different_data_are_refused_by_all(folder):
    (folder / "other").mkdir()
    for index in range(2):
        write_data(folder / "other" / f"tiny{index}.npz", test_seed=index)
    command = training(folder, f"{folder}/differ-{{index}}", 2)
    command = [part.replace(f"{folder}/tiny.npz", f"{folder}/other/tiny{{index}}.npz") for part in command]
    for said in finish(start(command, 2, 1, folder), code=2):
        assert "the processes differ in settings or data" in said
    assert not list(folder.glob("differ-*"))


def test_slurm_needs_no_more_than_distributed(folder, four_devices):
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()),  # gives the port
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "{index}",
        "SLURM_LOCALID": "{index}",
    }
    command = training(folder, f"{folder}/slurm-{{index}}", 2)
    command = command[: command.index("--distributed") + 1]
    finish(start(command, 2, 2, folder, **slurm))
    assert_same(folder / "slurm-0", four_devices)


def test_distributed_alone_says_what_is_missing(folder):
    command = training(folder, f"{folder}/alone-{{index}}", 1)
    command = command[: command.index("--distributed") + 1]
    assert "--coordinator=host:port" in finish(start(command, 1, 1, folder), code=2)[0]


def test_flags_that_need_distributed():
    command = [sys.executable, "-m", "ncjax.main", f"--config={ROOT}/configs/digits.py", "--num_processes=2"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert finished.returncode == 2
    assert "need --distributed" in finished.stderr


TOGETHER = """
import sys, time
from pathlib import Path
import numpy as np
from ncjax.errors import InputError
from ncjax.training import hosts
index, folder = int(sys.argv[1]), Path(sys.argv[2])
hosts.join(sys.argv[3], 2, index)

def prepare():
    found = (folder / "prepared").exists()
    if not found:
        time.sleep(1)
        (folder / "prepared").touch()
    return found

assert hosts.first_then_others(prepare) == (index == 1)
large = np.random.default_rng(0).integers(0, 256, 40_000_001, np.uint8)
np.testing.assert_array_equal(hosts.from_first(lambda: large if hosts.is_first() else 1 / 0), large)
assert hosts.any_process(index == 1) and not hosts.any_process(False)

def stop(at):
    if index == at:
        raise InputError("no such file")

for at, function in ((0, hosts.from_first), (0, hosts.first_then_others), (1, hosts.first_then_others)):
    try:
        function(lambda: stop(at))
    except InputError as error:
        told = "no such file" in str(error)
        assert told or (at == 1 and index == 0), error
    else:
        raise AssertionError("went on")
print("done")
"""


def test_who_does_what(folder):
    command = [sys.executable, "-c", TOGETHER, "{index}", str(folder), f"localhost:{free_port()}"]
    assert all("done" in said for said in finish(start(command, 2, 1, folder)))
