"""A file that carries the project to a machine without a network, and the laying out of it there (docs/hosts.md)."""
