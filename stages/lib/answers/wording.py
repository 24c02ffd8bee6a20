"""The words by which an answer is known, in English (lower case) and Chinese: one pattern a kind, its words below it.

A ``(?=[…])`` in front holds the first letters of what follows it: so at most places a search fails at once.

``PHRASE`` announces an answer; ``REJECTED`` and what follows it say that a mentioned one does not stand; ``CONCLUDES``
and ``TOTAL`` make a result of a sentence; ``IDIOM`` and the scene's patterns tell the numbers that are none.
"""

import re

PHRASE = re.compile(
    r"\banswers?\b(?:\s(?:to|for|of)\s[^.\n:：?？。]{0,80}?)?[\s*_]{0,6}"
    r"(?:\b(?:is|are|was|would be|should be|must be|will be|equals|comes to)\b|[:：=]|(?<=\*\*)\s?\n)"
    r"|答案[\s*_”\"」]{0,6}(?:不是[^，,。\n]{1,20}[，,]\s?而|就|应该|当然|自然|便|其实|也|确实|一定|等于){0,3}"
    r"(?:是|为|等于|[:：=]|(?=\*\*\d)|(?=\s?\d)|(?<=\*\*)\s?\n|(?=\s{0,2}\n))"
    r"|(?m:^)\W{0,8}答[:：]"
    r"|(?m:^)[#*\s>]{0,8}(?:final )?answer[*\s]{0,4}(?m:$)"
)
HEADED = re.compile(r"(?m:^)[^\n]{0,12}(?:answer|答案|答)[\s*]{0,4}[:：]")
ANNOUNCED_FINAL = re.compile(r"final|最终|最后的?答案|in conclusion|综上")

# before the phrase, in its sentence: somebody else's answer, or a denied one
REJECTED = re.compile(
    r"(?<![没不])错(?!过)|不对|不正确|不是(?!吗|吧)|并非|有人|有的|有些|有同学|有小朋友|可能会|会以为|以为|误以为|会说|会想|会觉得|猜"
    r"|\b(?:wrong|incorrect|not correct|isn't|is not|can't be|cannot be|tempted|mistaken\w*|not"
    r"|might (?:think|say|guess|answer)|may (?:think|say)|would (?:think|say|guess)|some(?:one| people| students))\b"
)
# how the next sentence takes an answer back
REJECTS_BEFORE = re.compile(
    r"^\W*(?:(?:爸爸|老师|dad|teacher|tutor)\W{0,4})?"
    r"(?:不对|不是|错了|不正确|再想|再算|差一点|等等|等一下|哎呀|啊[，,！!]"
    r"|no\b(?! problem)|nope|wrong|not quite|incorrect"
    r"|that'?s (?:wrong|not)|this is (?:wrong|not|incorrect)|wait|oops|sorry|actually|hmm|correction)"
)
CORRECTS = re.compile(
    r"(?=[等哎不数算看写说错更应其woacsin])(?:等等|等一下|哎呀|不对|[数算看写说]?错了|更正|应该是|其实是|算错"
    r"|\b(?:wait|oops|actually|correction|sorry|i made a mistake|should be|no,))"
)
DENIES = re.compile(r"[\s*]*(?:不是|not\b(?! only))")
# right before a number and right after it: only here, for "the eggs that were not sold are 18" denies nothing
DENIED_BEFORE = re.compile(
    r"(?:\b(?:is|are|was|were|be|'s)\s+not|\b(?:is|are|was|were)n['’]t|\bcan(?:not|['’]t)\s+be|不是|不会是|不可能是|并非)[\s*$¥€£]*$"
)
DENIED_AFTER = re.compile(
    r"[\s*]*(?:[a-z]+\s)?(?:(?:is|are|was|were)(?:n['’]t|\s+not|\s+wrong|\s+incorrect)\b|\S?(?:不对|是错的|不是答案))"
)
BUT = re.compile(r"(?:不是|\bnot)\s?[^,，]{1,30}[,，]\s?(?:而是|but)(.*)")
BUT_WRONG = re.compile(r"(?:但|可是|but)[^。.]{0,24}(?:不对|错|wrong|not (?:right|correct)|incorrect)")

FINAL = re.compile(
    r"(?=[f最thsai所因综总一])"
    r"(?:final|最终|最后|therefore|thus|hence|所以|因此|综上|总共|一共|总之|\bso\b|total|altogether|in conclusion)"
)
CONCLUDES = re.compile(
    r"(?=[所因于那这一总共合加最结也得就剩还需sthafrcmlgni])"
    r"(?:所以|因此|因而|于是|那么|这样|一共|总共|共[有计赚花卖用需要得是]|总计|合计|加起来|最后|最终|结果|也就是|得到|得出|就是"
    r"|剩下|还剩|还有|需要"
    r"|\b(?:so|therefore|thus|hence|total|altogether|finally|result|conclusion|means|left|makes|gives|needs?|in all)\b)"
)
TOTAL = re.compile(
    r"(?=[一总共合atgi])(?:一共|总共|共[有计赚花卖用需要得是]|总计|合计|总数|总和"
    r"|\b(?:altogether|(?:a |the )?(?:grand )?total(?: \w+){0,3}?(?: is| of|:)|in all,))"
)
CLAUSE = re.compile(
    r"所以|因此|也就是说?|即|那么|这样|于是|剩下|还剩"
    r"|\b(?:so|therefore|thus|hence|that is|i\.e\.|which (?:is|means|equals)|meaning)\b"
    r"|(?:which|that) (?:gives|leaves|makes)|round\w*(?: up| down)? to"
)
# a total that the same sentence states after its equations: 4 + 6 = 10, 2 + 3 = 5，加起来 15
LATER_TOTAL = re.compile(
    r"(?:加起来|合起来|一共|总共|合计|总计)(?:就?[是有为]|等于|[:：])?(?=[\s*$]{0,4}\d)"
    r"|\b(?:altogether|in total|in all|together|the total)"
    r"(?:,| is|:| makes| that makes| that's| it's){0,2}(?=\s[*$]{0,4}\d)"
)
HYPOTHETICAL = re.compile(r"^\W*(?:如果|假如|要是|if\b)")
HEDGE = re.compile(r"可能|也许|或者|或是|还是|不确定|\b(?:or|either|maybe|perhaps|might|depend\w*|not sure)\b")
LISTED = re.compile(r"\s*(?:[-•+·▪►✅*]|\W)\s+[^=≈\n]{1,40}\d|[^\d\n=≈]{1,24}[:：][\s*$]*-?\d")
SUMS_UP = re.compile(rf"{FINAL.pattern}|{TOTAL.pattern}|答|结果|合|\b(?:result|answer|sum)\b|[=≈]")

# numbers that set the scene: 7 days a week, 24 hours in a day, 每人 3 个, in 2 months, 3天后
IDIOM = re.compile(
    r"^[\s*-]{0,3}(?:(?:days?|nights?) (?:a|per|in a|every|each) week|hours (?:a|per|in a|every) day"
    r"|(?:minutes|mins) (?:a|per|in an?) hour|seconds (?:a|per|in a) minute|(?:months|weeks|days) (?:a|per|in a) year"
    r"|weeks (?:a|per|in a) month|(?:cents|pennies) (?:a|per|in a|in one) dollar|steps?\b|methods?\b|ways?\b"
    r"|种(?:方法|办法|思路)|个?步骤?|遍|个?方法|颗星|分满分|昼夜)"
)
BEFORE_SCENE = re.compile(
    r"(?:\b(?:per|every|each|out of|after|within|over|during|in|for|of (?:the|all|her|his|their)|all"
    r"|the (?:first|last|next|other))|每[一-鿿]{0,3}|每隔|第|前|后|这|那|其中|分给|从第)[\s*]*$"
)
AFTER_SCENE = re.compile(
    r"^[\s*]*(?:个|只|位|名|天|周|年|月|小时|分钟|星期|人|块|元|本|次){0,2}[\s*]*"
    r"(?:后|里|内|之内|以后|之后|一共|总共|的一半|倍|中的|人每人|人平分|个人|小朋友|个小朋友|×|÷|\*\s?\d|\+|/)"
    r"|^[\s*]*(?:times as|times more|\s*(?:\w+ )?out of\b|%\s?of\b|percent of\b)"
)
# between two numbers of which both may be meant
CONNECTOR = re.compile(
    r"(?:,|，|、|;|；|/|~|-|或者?是?|还是|和|跟|与|以及|到|至|可能是|\bor\b|\band\b|\bto\b|\bplus\b|&|±)"
    r"[\s*]*(?:maybe|perhaps|possibly|also|even|is|也?可能是?|约|又)?[\s*$\"'“”(]*$"
)
SIDE_BY_SIDE = re.compile(r"(?:和|或者?|还是|与|跟|以及|\band\b|\bor\b)[^\d\n]{0,12}$")
LABELLED = re.compile(r"[:：][\s*$]*$")  # 总价：64 元
VERB = re.compile(r"(?:是|等于|得到?|为|变成|\bis|\bare|\bwas|\bequals|\bmakes|\bgives)[\s*$]*(?:只有)?$")
ENDS = re.compile(r"[\s*$]*[^\s\d,，、;；:：]{0,8}[\s*]*[^\w\s]*\s*$")


def is_listed(line: str) -> bool:
    """Whether a line is one labelled value of a list, and no sum: - Ann: **48**."""
    return LISTED.match(line) is not None and not SUMS_UP.search(line)
