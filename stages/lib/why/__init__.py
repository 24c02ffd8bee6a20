"""Why a stage would run again, and which stages an edit runs: dvc.yaml, dvc.lock and params.yaml in words."""
