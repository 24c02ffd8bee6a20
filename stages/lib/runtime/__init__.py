"""The machine that trains and evaluates: its devices, the versions of its libraries, the hash of a student's files."""
