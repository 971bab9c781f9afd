"""A method of one's own in one's own module, as a worker process has to find it."""

from unlearnkit.methods import method


@method("raises", title="Raises")
def raises(run):
    """Fail as a bug does."""
    raise ZeroDivisionError("of my own making")
