"""Files that are whole or absent, and folders that are described and checksummed."""
