"""Several processes, usually one on each host: which of them does what.

All run the same program on the same mesh. Process 0 alone touches the workdir; what it found there, and what went wrong
there, reaches every process (`from_first`), so that none is left waiting for one that stopped. In a single process
every function here is the plain call.
"""

import hashlib
import pickle
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ncjax.errors import InputError

T = TypeVar("T")
PIECE_BYTES = 2**24  # of a broadcast, which needs that much memory on every device


def join(coordinator: str = "", num_processes: int | None = None, process_id: int | None = None) -> None:
    """Connect this process with the others; call before jax is first used.

    Without arguments for clusters that jax knows: TPU pods, Slurm, Open MPI, Kubernetes.

    Args:
      coordinator: host:port of process 0.

    Raises:
      InputError: when jax does not know the cluster, or the arguments do not fit together.
    """
    try:
        jax.distributed.initialize(coordinator or None, num_processes, process_id)
    except ValueError as error:
        raise InputError(
            f"--distributed: {str(error).rstrip('.')}; give --coordinator=host:port, --num_processes and --process_id"
        ) from error


def is_first() -> bool:
    """Whether this is process 0."""
    return jax.process_index() == 0


def from_first(function: Callable[[], T]) -> T:
    """`function()` as process 0 finds it, on every process; what it raises there stops all.

    Raises:
      InputError: on the others, with the message of process 0.
    """
    if jax.process_count() == 1:
        return function()
    found, failure = None, None
    if is_first():
        try:
            found = function()
        except Exception as error:
            failure = error
    content = pickle.dumps((found, None if failure is None else f"process 0 stopped: {failure}"))
    found, message = pickle.loads(_broadcast(content))
    if failure is not None:
        raise failure
    if message is not None:
        raise InputError(message)
    return found


def first_then_others(function: Callable[[], T]) -> T:
    """`function()` on process 0 and then on the others, which find what it prepared.

    Raises:
      InputError: on all, when it fails on any.
    """
    if jax.process_count() == 1:
        return function()
    found, failure = [], None
    from_first(lambda: found.append(function()))
    if not found:
        try:
            found.append(function())
        except InputError as error:
            failure = error
    if any_process(failure is not None):
        raise failure or InputError("another process stopped; its own output says why")
    return found[0]


def any_process(flag: bool) -> bool:
    """Whether `flag` is true on any process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def require_same(content: str) -> None:
    """Check that `content` (settings, fingerprints) is equal on all processes.

    Raises:
      InputError: on all, when it is not.
    """
    digest = np.frombuffer(hashlib.sha256(content.encode()).digest(), np.uint8)
    if jax.process_count() > 1 and (multihost_utils.process_allgather(digest) != digest).any():
        raise InputError("the processes differ in settings or data: start all with the same command and the same files")


def _broadcast(content: bytes) -> bytes:
    """`content` of process 0 on every process, in pieces of few sizes: each size is compiled once."""
    whole, rest = (int(n) for n in multihost_utils.broadcast_one_to_all(np.array(divmod(len(content), PIECE_BYTES))))
    sizes = [PIECE_BYTES] * whole + [rest] * (rest > 0)
    pieces = []
    for index, size in enumerate(sizes):
        padded = np.zeros(1 << (size - 1).bit_length(), np.uint8)
        if is_first():
            start = index * PIECE_BYTES
            padded[:size] = np.frombuffer(content, np.uint8, size, start)
        pieces.append(multihost_utils.broadcast_one_to_all(padded)[:size].tobytes())
    return b"".join(pieces)
