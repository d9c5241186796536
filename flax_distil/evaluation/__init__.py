"""Word error rate and speed of models on data sets, as a report."""
