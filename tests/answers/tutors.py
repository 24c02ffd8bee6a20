"""Answers in the manner of reasoning models that teach, written for this project: (question, answer, text).

Each is right. With any other of its numbers as the gold answer it is not (``test_answers.py``).
"""

PENS = "A class has 28 pupils. Each needs 3 pens, and pens come in packs of 12. How many packs must the teacher buy?"
GARDEN = "A garden is 15 meters long and 8 meters wide. How many meters of fence are needed to go round it twice?"
BAKER = "A baker makes 240 rolls. He sells 3/4 of them in the morning and half of the rest at noon. How many rolls are left?"
SAVE = "Lin saves $7 a week. She already has $26. A bike costs $110. After how many weeks can she buy it?"
TAXI = "A taxi costs $4 plus $2.50 a mile. How much does a ride of 9 miles cost?"
AGES = "Maya is twice as old as Leo. In 6 years Leo will be 17. How old is Maya now?"
DISCOUNT = "A coat of $80 is sold at a discount of 15%. What is the price now?"
SPEED = "A cyclist rides 18 miles an hour for 2.5 hours. How far does she ride?"
PARTS = "Of 54 stamps, Ana gave a third to Bo and 8 to Cy. How many stamps did Ana keep?"
SHEEP = "农场有鸡和羊一共 36 只,羊比鸡多 10 只。羊有多少只?"
WATER = "水箱里有 120 升水,每分钟流出 4 升,又流进 1.5 升。多少分钟后流完?"
TICKETS = "成人票每张 45 元,儿童票半价。2 个大人和 3 个小孩一共要多少元?"
ROAD = "一条路长 960 米,甲队每天修 70 米,乙队每天修 90 米,两队一起修,几天修完?"

TUTORS: list[tuple[str, str, str]] = [
    (
        PENS,
        "7",
        """Let's solve it step by step! 😊

**Step 1: How many pens in all?**
28 pupils × 3 pens = **84 pens**.

**Step 2: How many packs?**
84 ÷ 12 = **7 packs**.

**Final Answer:**
The teacher must buy **7 packs** of pens! 🖊️

**Check:**
7 packs × 12 pens = 84 pens, and 84 ÷ 28 = 3 pens for each pupil. It works!

Now try this one: What if there were 40 pupils? (Hint: 40 × 3 = 120, and 120 ÷ 12 = 10 packs.)""",
    ),
    (
        PENS,
        "7",
        """Alright buddy, imagine we are the teacher. We have 28 friends and everybody gets 3 pens.

First: 28 × 3. Think of 30 × 3 = 90, then take away 2 × 3 = 6. That leaves 84 pens.

Then we put them in packs of 12: 12, 24, 36, 48, 60, 72, 84. That's 7 jumps!

So we need **7 packs**. 🎉

Can you tell me how many pens would be in 8 packs?""",
    ),
    (
        GARDEN,
        "92",
        """### Step-by-step

1. **One round:** 15 + 8 + 15 + 8 = 46 meters.
2. **Two rounds:** 46 × 2 = 92 meters.

### Final Answer
You need **92 meters** of fence to go around the garden **2 times**.

---

*Real-life connection:* A football field of 100 by 50 meters has a perimeter of 300 meters!""",
    ),
    (
        GARDEN,
        "92",
        """The perimeter is 2 × (15 + 8) = 2 × 23 = 46 m. Going around twice takes 2 × 46 = 92 m of fence.

Answer: 92 meters

Let me verify: 92 ÷ 2 = 46, and 46 ÷ 2 = 23 = 15 + 8 ✓""",
    ),
    (
        BAKER,
        "30",
        """**Morning:** He sells 3/4 of 240. A quarter is 240 ÷ 4 = 60, so three quarters are 60 × 3 = 180.

**Left after the morning:** 240 − 180 = 60.

**Noon:** He sells half of 60, which is 30.

**Left:** 60 − 30 = **30 rolls**.

So at the end of the day the baker has **30 rolls left**. 🥐

Let's double check our math: 180 + 30 + 30 = 240. Perfect!""",
    ),
    (
        BAKER,
        "30",
        """Think of the rolls as a big cake cut in 4 pieces. Each piece is 60 rolls (because 240 ÷ 4 = 60).

He sells 3 pieces. One piece of 60 rolls remains. At noon half of it goes: 30 sold, 30 left.

**Answer: 30 rolls are left.**

💡 Remember: "half of the rest" means half of what is LEFT, not half of 240 (that would be 120, a common mistake!).""",
    ),
    (
        SAVE,
        "12",
        """1. Money still needed: $110 − $26 = $84
2. Weeks: $84 ÷ $7 = 12

✅ **Final answer: 12 weeks**

**Why does it work?** After 12 weeks she has saved 12 × $7 = $84, and $84 + $26 = $110, exactly the price of the bike.""",
    ),
    (
        SAVE,
        "12",
        """She needs 110 - 26 = 84 dollars more. At $7 a week that takes 84/7 = 12 weeks. So Lin can buy the bike after **12 weeks** with **$0** left over.

Would you like to try with a bike of $131?""",
    ),
    (
        TAXI,
        "26.5",
        """**Start:** $4
**Miles:** 9 × $2.50 = $22.50
**Total:** $4 + $22.50 = **$26.50**

**Final Answer:** The ride costs **$26.50**.

*Bonus question:* How far could you go with $54? ($54 − $4 = $50, and $50 ÷ $2.50 = 20 miles!)""",
    ),
    (
        AGES,
        "22",
        """Leo in 6 years: 17
Leo now: 17 − 6 = 11

Maya is twice as old: 2 × 11 = 22

**So Maya is 22 years old now!**

(In 6 years she'll be 28, but the question asks about now.)""",
    ),
    (
        AGES,
        "22",
        """Let's find Leo's age first. If Leo will be 17 in 6 years, then today he's 17 - 6 = **11 years old**.

Maya is twice as old as Leo, so 11 + 11 = **22 years old**.

🎯 **Final Answer:** Maya is **22 years old** now.

Let's check: In 6 years, Maya will be 22 + 6 = 28 and Leo will be 11 + 6 = 17. Yes!""",
    ),
    (
        DISCOUNT,
        "68",
        """To find 15% of $80, split it up:
- 10% of 80 = $8
- 5% of 80 = $4
- Together: $8 + $4 = $12

Now subtract: $80 − $12 = **$68**.

The coat costs **$68** after the 15% discount!

Think of it like this: for every $10, you save $1.50.""",
    ),
    (
        DISCOUNT,
        "68",
        """If you take 15% off, you pay 85%. And 0.85 × 80 = 68. So the new price is 68 dollars, which is 12 dollars less than before. Great job following along!""",
    ),
    (
        SPEED,
        "45",
        """- In 2 hours: 18 × 2 = 36 miles
- In half an hour: 18 ÷ 2 = 9 miles
- Altogether: 36 + 9 = 45 miles

Therefore she rides 45 miles in 2.5 hours.""",
    ),
    (
        SPEED,
        "45",
        r"""We use \( d = v \cdot t \):

\[ d = 18 \times 2.5 = 45 \]

**The cyclist rides \(45\) miles.**

For example, a car at 60 miles per hour would cover \(60 \times 2.5 = 150\) miles in the same time.""",
    ),
    (
        PARTS,
        "28",
        """**Bo gets:** 54 ÷ 3 = 18 stamps
**Cy gets:** 8 stamps
**Given away:** 18 + 8 = 26 stamps
**Ana keeps:** 54 − 26 = 28 stamps

🌟 **Answer: Ana kept 28 stamps, Bo has 18 and Cy has 8.** 🌟""",
    ),
    (
        PARTS,
        "28",
        """Ana starts with 54. A third is 18, so after Bo she has 36. After giving 8 to Cy she's left with 28.

**Summary:** Bo got **18 stamps**, Cy got **8 stamps**, and Ana kept **28 stamps**.

Let's practice! If Ana had 60 stamps and gave a third to Bo, how many would Bo get? (20!)""",
    ),
    (
        SHEEP,
        "23",
        """赛西,我们一起来想想!

**第一步:** 如果羊没有多出来的 10 只,那么鸡和羊就一样多:36 - 10 = 26 只。
**第二步:** 一样多的时候,每种就是 26 ÷ 2 = 13 只,所以鸡有 13 只。
**第三步:** 羊比鸡多 10 只:13 + 10 = 23 只。

**答案:羊有 23 只,鸡有 13 只。**

我们来验证一下:23 + 13 = 36,23 - 13 = 10,都对啦!🐑""",
    ),
    (
        SHEEP,
        "23",
        """羊和鸡加起来 36 只。要是羊少 10 只,两种就一样多了,对不对?

(36 - 10) ÷ 2 = 13,这是鸡的只数。

羊就是 13 + 10 = **23只**!

小朋友,你能告诉爸爸,如果羊比鸡多 6 只,羊是几只吗?(21 只哦)""",
    ),
    (
        WATER,
        "48",
        """每分钟流出 4 升,流进 1.5 升,实际上每分钟少了 4 - 1.5 = 2.5 升。

120 ÷ 2.5 = 48

### 最终答案
**48 分钟**后水就流完了。

### 举一反三
如果水箱里有 200 升水呢?200 ÷ 2.5 = **80 分钟**。""",
    ),
    (
        WATER,
        "48",
        """先算一分钟净流出多少:4-1.5=2.5升;再看120里面有几个2.5:120÷2.5=48。所以48分钟后流完,也就是不到1小时。""",
    ),
    (
        TICKETS,
        "157.5",
        """**大人:** 45 × 2 = 90 元
**小孩:** 一张半价票是 45 ÷ 2 = 22.5 元,3 张就是 22.5 × 3 = 67.5 元
**一共:** 90 + 67.5 = 157.5 元

所以一共要花 **157.5 元**,也就是 157 元 5 角。

记住哦:半价就是除以 2!比如 10 元的东西半价就是 5 元。""",
    ),
    (
        ROAD,
        "6",
        """爸爸:赛西,两队一起干活,一天能修多长呀?
赛西:70 + 90 = 160 米!
爸爸:真棒!那 960 米要修几天呢?
赛西:960 ÷ 160 = 6!
爸爸:对啦,所以 **6 天**就修完了!

爸爸再考考你:要是只有甲队,700 米要修几天呢?
赛西:700 ÷ 70 = 10 天!""",
    ),
    (
        ROAD,
        "6",
        """解:两队每天一共修 70 + 90 = 160(米),
960 ÷ 160 = 6(天)。
答:6 天修完,其中甲队修了 420 米,乙队修了 540 米。""",
    ),
]
