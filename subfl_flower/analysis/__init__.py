"""Analyses of finished runs: their partition and the clients' models, as in FED-PUB."""
