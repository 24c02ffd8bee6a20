"""What the stages are built from: one room a subject. A room never imports a stage."""
