"""Analyse runs, or features from elsewhere: tables, figures and one report.html.

python -m ncjax.analyze --workdir=out/digits                       # from the checkpoints alone
python -m ncjax.analyze --workdir=out/a --workdir=out/b            # several cells side by side
python -m ncjax.analyze --features=file.npz                        # features of any network
python -m ncjax.analyze --workdir=out/digits --export_run=3        # features of a run, in that format
"""

from pathlib import Path

from absl import flags

from ncjax.command import run
from ncjax.errors import InputError

_WORKDIR = flags.DEFINE_multi_string("workdir", [], "Workdir of a training run; several are compared.")
_FEATURES = flags.DEFINE_string("features", "", "An .npz of features (N, D), labels (N,), frame (D, C); see README.")
_OUT = flags.DEFINE_string("out", "", "Where results go: default <workdir>/analysis, <file>.analysis, out/comparison.")
_EXPORT_RUN = flags.DEFINE_integer("export_run", None, "Only write the features of this run, as --features reads them.")


def main(arguments: list[str]) -> None:
    """Analyse what the flags name."""
    workdirs, features, out = _WORKDIR.value, _FEATURES.value, _OUT.value
    if len(arguments) > 1 or bool(workdirs) == bool(features):
        raise InputError("which runs? --workdir=out/digits, or --features=file.npz (python -m ncjax.analyze --help)")
    if _EXPORT_RUN.value is not None and len(workdirs) != 1:
        raise InputError("--export_run names a run of one workdir: give one --workdir and no --features")
    from ncjax.analysis import pages
    from ncjax.analysis.runset import load
    from ncjax.training import parallel

    parallel.use_all_cores()
    parallel.keep_compilations()
    if features:
        pages.features_page(Path(features), Path(out or Path(features).with_suffix(".analysis")))
    elif _EXPORT_RUN.value is not None:
        path = Path(out or Path(workdirs[0]) / "analysis") / f"features-{_EXPORT_RUN.value:03d}.npz"
        load(workdirs[0]).export_features(path, _EXPORT_RUN.value)
        print(f"features {path}")
    elif len(workdirs) > 1:
        pages.comparison_page(workdirs, Path(out or "out/comparison"))
    else:
        pages.workdir_page(load(workdirs[0]), Path(out or Path(workdirs[0]) / "analysis"))


if __name__ == "__main__":
    run(main)
