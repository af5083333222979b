"""Checkpoints behind one door: Orbax, with a digest of every leaf.

Orbax restores a file with a flipped byte without complaint and names a step whose files are gone as the latest one.
So each save carries the digests of its leaves, and `restore_newest` walks from the newest step to the oldest until one
is intact. A checkpoint holds plain unpadded (R, ...) arrays: it does not know on how many devices it was made. Where
several processes train together, process 0 alone comes here.
"""

import hashlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from ncjax.errors import InputError


class Checkpoints:
    """The checkpoints of a workdir; use as a context manager, so that a save under way is finished."""

    def __init__(self, workdir: Path):
        folder = (workdir / "checkpoints").resolve()
        folder.mkdir(parents=True, exist_ok=True)  # Orbax makes it only where all processes take part
        options = ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=True,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0}),
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps with a checkpoint, intact or not, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state) -> None:
        """Save a tree of host arrays in the background."""
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), digests=ocp.args.JsonSave(_digests(state)))
        self._manager.save(step, args=arguments, force=True)

    def restore(self, step: int, like):
        """The tree of host arrays saved at `step`; `like` gives its structure, shapes and dtypes.

        Raises:
          InputError: when it is missing, damaged, or of another structure.
        """
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like), digests=ocp.args.JsonRestore())
        try:
            saved = self._manager.restore(step, args=arguments)
            state = jax.tree.map(np.asarray, saved["state"])
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
            raise InputError(f"checkpoint {step} cannot be read: {_first_line(error)}") from error
        wrong = [path for path, digest in _digests(state).items() if saved["digests"].get(path) != digest]
        if wrong:
            raise InputError(f"checkpoint {step} is damaged: {wrong[0]} does not match its digest")
        return state

    def restore_newest(self, like, report=print):
        """(step, state) of the newest intact checkpoint, or (None, None); `report` is told of every one skipped."""
        for step in reversed(self.steps()):
            try:
                return step, self.restore(step, like)
            except InputError as error:
                report(f"warning: {error}; trying the one before")
        return None, None

    def discard_after(self, step: int) -> None:
        """Delete the checkpoints of later steps, which a resumed job will write again."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)


def _digests(state) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): _digest(np.asarray(leaf)) for path, leaf in leaves}


def _digest(array: np.ndarray) -> str:
    header = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
