"""Tables, figures and verdicts, drawn from stored results alone."""

from unlearnkit.report.publish import publish, publish_all
from unlearnkit.report.study import NothingToDraw, Study, load_study, read_study, stored

__all__ = ["NothingToDraw", "Study", "load_study", "publish", "publish_all", "read_study", "stored"]
