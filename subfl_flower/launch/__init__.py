"""`subfl launch`: one federation through `flwr run`, on a SuperLink that ends with the command."""
