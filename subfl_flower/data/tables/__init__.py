"""Tables that people bring, read strictly."""
