"""Train many equivalent-ETF classifiers at once; measure neural collapse, margins and generalization bounds."""

__all__ = ["load"]


def load(workdir):
    """The runs of a workdir, for notebooks; see `ncjax.analysis.runset.RunSet`."""
    from ncjax.analysis.runset import load  # kept out of `import ncjax`, which is fast

    return load(workdir)
