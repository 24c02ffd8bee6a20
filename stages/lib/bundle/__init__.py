"""Pack the project into a file for a machine without a network, and unpack it there (docs/hosts.md)."""
