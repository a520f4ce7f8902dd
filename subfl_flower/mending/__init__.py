"""What a client's graph lacks because other clients hold it: hidden for training, generated for use."""
