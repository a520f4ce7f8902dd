"""Commands of `subfl` before and after training: clients' folders, inspection of data, and predictions."""
