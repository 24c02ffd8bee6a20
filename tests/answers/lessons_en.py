"""Whole lessons in English, as a patient tutor gives them: (question, answer, verdict, text)."""

from tests.answers.questions import CLIPS, EGGS

TRAIN = "A train drives 60 miles an hour for 4 hours. How many miles does it drive?"
LONG_TRIP = "A trip is 240 miles at 60 miles an hour. How many hours does the trip take?"
SAVINGS = (
    "Betty needs $100 for a wallet. She has half of it, her parents give her $15 and her grandparents "
    "twice as much. How much more money does Betty need?"
)
PIZZA = "A pizza has 8 slices. Albert eats 3 slices. What fraction of the pizza is left?"
RATIO = "There are 12 boys and 16 girls. What is the ratio of boys to girls in lowest terms?"
POPULATION = "A city of 1,200 people grows by a quarter. How many people live there now?"
TEMPERATURE = "It is 5 degrees and gets 12 degrees colder. What is the temperature now?"

LESSONS: list[tuple[str, str, str, str]] = [
    (
        CLIPS,
        "72",
        "right",
        """Let's work through this together, Cece! 😊

**Step 1: April**
Natalia sold **48** clips in April.

**Step 2: May**
She sold half as many: 48 ÷ 2 = **24** clips.

**Step 3: Altogether**
48 + 24 = **72** clips

So Natalia sold **72 clips** altogether! 🎉

Now your turn! If she sells 10 clips in June, how many clips is that in all three months?""",
    ),
    (
        CLIPS,
        "72",
        "right",
        """48 / 2 = 24 in May, so 48 + 24 = 72.

The answer is **72**.

**Try this one:** Tom sold 30 clips in April and half as many in May. How many clips is that? (The answer is 45.)""",
    ),
    (
        CLIPS,
        "72",
        "wrong",
        """48 / 2 = 24 in May, so 48 + 24 = 62.

The answer is **62**.

**Practice:** Ann sold 48 clips in June and 24 in July. How many is that? 48 + 24 = 72.""",
    ),
    (
        CLIPS,
        "72",
        "right",
        """## Solution

1. April: 48 clips
2. May: 48 ÷ 2 = 24 clips
3. Total: 48 + 24 = 72 clips

### Final Answer

72 clips

### Check

72 - 24 = 48 ✓""",
    ),
    (
        CLIPS,
        "72",
        "right",
        """First we find May. Half of 48 is 24. Then we add: 48 plus 24 equals 72.

So altogether Natalia sold seventy-two clips (72). Great job!
Next time you see the word "half", remember to divide by 2.""",
    ),
    (
        EGGS,
        "18",
        "right",
        """Janet has 16 - 3 - 4 = 9 eggs left. She sells them for $2 each,
so she makes 9 × $2 = $18 every day, 7 days a week.""",
    ),
    (EGGS, "18", "right", "She makes 18 dollars, 7 days a week."),
    (
        EGGS,
        "18",
        "right",
        """**Question 1: How many eggs does she use?**
Answer: 7

**Question 2: How many eggs are left?**
Answer: 9

**Question 3: How much does she make?**
Answer: $18""",
    ),
    (
        EGGS,
        "18",
        "right",
        """You might think the answer is $32, but that is wrong,
because she does not sell the eggs she eats. The correct answer is $18.""",
    ),
    (
        EGGS,
        "18",
        "right",
        """She has 16 - 3 = 13 eggs, and sells them for 13 × 2 = $26. The answer is $26.

Wait, I forgot the muffins! 13 - 4 = 9 eggs, and 9 × 2 = 18. So the answer is $18.""",
    ),
    (
        EGGS,
        "18",
        "wrong",
        """She has 16 - 3 = 13 eggs left and sells each for $2: 13 × 2 = $26.

**Answer: $26 per day**

Let me know if you'd like another example! 😊""",
    ),
    (
        EGGS,
        "18",
        "right",
        """Let's see: 9 eggs times 2 dollars.

$$9 \\times 2 = \\boxed{18}$$

Imagine you had 5 eggs and sold each for $3. How much would you make?""",
    ),
    (EGGS, "18", "unsure", "She makes either $18 or $20, depending on how you count the eggs."),
    (EGGS, "18", "unsure", "That's a great question! Ducks are lovely animals, and muffins are tasty too."),
    (
        TRAIN,
        "240",
        "right",
        """Distance is speed times time, so the train drives 60 × 4 = 240 miles.

**Double-check:** 240 / 60 = 4 hours. ✓

**Challenge question:** How far would it go in 5 hours?""",
    ),
    (
        TRAIN,
        "240",
        "wrong",
        """Distance = speed × time = 60 + 4 = 64 miles.

Therefore, the train drives **64 miles**.""",
    ),
    (LONG_TRIP, "4", "right", "At 60 miles an hour, every mile takes a minute, so the trip takes 240 minutes."),
    (LONG_TRIP, "4", "right", "240 ÷ 60 = 4. So the trip takes **4 hours** (that is 240 minutes)."),
    (LONG_TRIP, "4", "wrong", "So the trip takes **180 minutes**."),
    (
        SAVINGS,
        "5",
        "right",
        """Betty has 100 / 2 = $50.
Her grandparents give her 15 × 2 = $30.
She now has 50 + 15 + 30 = $95.
She needs 100 - 95 = $5 more.

**Betty needs $5 more.**

What if the wallet cost $120? Can you work out how much more she would need?""",
    ),
    (
        SAVINGS,
        "5",
        "right",
        """Betty needs $5.00 more to buy the wallet.

Remember: always add up what you have before you subtract!""",
    ),
    (SAVINGS, "5", "wrong", "Betty has 50 + 15 + 30 = $95. So she has **$95**."),
    (PIZZA, "5/8", "right", "8 - 3 = 5 slices are left, so \\(\\frac{5}{8}\\) of the pizza is left."),
    (PIZZA, "5/8", "right", "**Answer:** 5 out of 8 slices are left, which is 5/8 of the pizza."),
    (RATIO, "3:4", "right", "Divide both by 4: 12:16 = 3:4. The ratio of boys to girls is **3:4**."),
    (RATIO, "3:4", "right", "The answer is 3 to 4."),
    (
        POPULATION,
        "1500",
        "right",
        "A quarter of 1,200 is 300. Therefore 1,200 + 300 = **1,500 people** live there now.",
    ),
    (POPULATION, "1500", "right", "Final answer: \\(\\boxed{1{,}500}\\) people"),
    (TEMPERATURE, "-7", "right", "5 − 12 = −7, so it is now **−7 degrees**. Brr! ❄️"),
    (TEMPERATURE, "-7", "wrong", "12 − 5 = 7, so it is now **7 degrees**."),
    (TEMPERATURE, "-7", "unsure", "It is now 7 or -7 degrees."),
]
