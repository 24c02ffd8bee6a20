"""The wording of questions: their scripts and lengths, and near-duplicates among them."""
