"""Train many equivalent-ETF classifiers at once; measure neural collapse, margins and generalization bounds."""

__all__ = ["compare", "load"]


def load(workdir):
    """The runs of a workdir, for notebooks; see `ncjax.analysis.runset.RunSet`."""
    from ncjax.analysis.runset import load  # kept out of `import ncjax`, which is fast

    return load(workdir)


def compare(workdirs):
    """The family tables of several workdirs side by side; see `ncjax.analysis.compare`."""
    from ncjax.analysis.compare import compare

    return compare(workdirs)
