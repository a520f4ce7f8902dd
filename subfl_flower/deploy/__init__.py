"""`subfl deploy`: certificates, keys and the processes of a federation on real machines."""
