"""Explain why a stage would run again, and which stages an edit runs, from dvc.yaml, dvc.lock and params.yaml."""
