"""What finished runs tell about their partition and about the clients' models: the analyses of FED-PUB."""
