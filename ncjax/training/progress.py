"""What a user sees while runs train: a live bar on a terminal, one plain line per evaluation elsewhere."""

import sys
import time
from statistics import fmean

from tqdm import tqdm


class Progress:
    """Counts epochs and run-images; use as a context manager."""

    def __init__(self, epochs: int, first_epoch: int, run_images_per_epoch: int, live: bool = True):
        self._live = live and sys.stderr.isatty()
        self._epochs, self._first, self._work = epochs, first_epoch, run_images_per_epoch
        self._started = time.monotonic()
        self._training_seconds, self._done = 0.0, 0
        self._bar = None
        self._accuracies = ""

    def __enter__(self):
        if self._live:
            self._bar = tqdm(total=self._epochs, initial=self._first, unit="epoch", dynamic_ncols=True)
        return self

    def __exit__(self, *_):
        if self._bar:
            self._bar.close()

    def trained(self, epochs: float, seconds: float) -> None:
        """`epochs` more (a share of one, when only some runs advanced) took `seconds`."""
        self._training_seconds += seconds
        self._done += epochs
        if self._bar:
            self._bar.update(epochs)
            self._bar.set_postfix_str(f"{self._rate()}{self._accuracies}")

    def evaluated(self, epoch: int, rows: list[dict]) -> None:
        """Show the rows (run, split, metric, value) of one evaluation."""
        accuracies = _values(rows, "train", "accuracy")
        self._accuracies = f", train accuracy {min(accuracies):.3f} to {max(accuracies):.3f}"
        if self._bar:
            return
        print(
            f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}{self._accuracies}, "
            f"loss {fmean(_values(rows, 'train', 'loss')):.3g}, p_min {fmean(_values(rows, 'train', 'p_min')):+.2f}, "
            f"test accuracy {fmean(_values(rows, 'test', 'accuracy')):.4f}, {self._rate()}, "
            f"{clock(self._remaining())} left",
            flush=True,
        )

    def _rate(self) -> str:
        return f"{self._done * self._work / max(self._training_seconds, 1e-9):,.0f} run-images/s"

    def _remaining(self) -> float:
        per_epoch = (time.monotonic() - self._started) / max(self._done, 1e-9)
        return per_epoch * (self._epochs - self._first - self._done)


def _values(rows: list[dict], split: str, metric: str) -> list[float]:
    return [row["value"] for row in rows if row["split"] == split and row["metric"] == metric]


def clock(seconds: float) -> str:
    """m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
