"""Questions that lessons in both languages answer."""

CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How "
    "many clips did Natalia sell altogether in April and May?"
)
EGGS = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast and bakes muffins with four. She "
    "sells the remainder at the market for $2 per egg. How much in dollars does she make every day?"
)
