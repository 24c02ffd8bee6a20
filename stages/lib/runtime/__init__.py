"""The machine that trains and evaluates: its devices, its libraries' versions, the hash of a student's files."""
