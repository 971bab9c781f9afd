"""Tables, figures and verdicts, drawn from stored results alone."""
