"""The choices of every group, as their YAML files describe them; nothing but text is read."""
