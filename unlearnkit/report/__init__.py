"""Tables, figures and verdicts, drawn from stored results alone."""

from unlearnkit.report.publish import publish, publish_all
from unlearnkit.report.show import fold, recap, show
from unlearnkit.report.study import NothingToDraw, Study, load_study, read_study, stored

__all__ = ["NothingToDraw", "Study", "fold", "load_study", "publish", "publish_all", "read_study"]
__all__ += ["recap", "show", "stored"]
