"""When to evaluate and when to save."""

import numpy as np


def evaluation_epochs(epochs: int, dense: int, log_spaced: int) -> list[int]:
    """Every epoch up to `dense`, then `log_spaced` more up to and including the last."""
    dense = min(dense, epochs)
    later = np.geomspace(max(dense, 1), epochs, log_spaced + 1)[1:]
    return sorted({*range(1, dense + 1), *(round(epoch) for epoch in later), epochs})


def checkpoint_epochs(epochs: int, every: int) -> list[int]:
    """Every `every` epochs (0: none of them) and the last."""
    return sorted({*range(every, epochs + 1, every), epochs}) if every else [epochs]
