r"""Final answers in MGSM's languages: by language, (response, gold answer, verdict).

The first row of each is the way in which MGSM's own worked examples end; answers in English or Chinese to a question
in another language are common too.
"""

from typing import NamedTuple


class Native(NamedTuple):
    """A response to a question in ``language``."""

    language: str
    response: str
    answer: str
    expected: str


FORMS: dict[str, list[tuple[str, str, str]]] = {
    "bn": [
        ("রজারের প্রথমে 5টি বল ছিল। 5 + 6 = 11। উত্তর হল 11।", "11", "right"),
        ("৫ + ৬ = ১১। উত্তর হল ১১।", "11", "right"),
        ("উত্তর: ১১", "11", "right"),
        ("উত্তর ১১।", "11", "right"),
        ("উত্তর ১২।", "11", "wrong"),
        ("সুতরাং, চূড়ান্ত উত্তর হলো **১৮** ডলার।", "18", "right"),
        ("তিনি প্রতিদিন ১৬ - ৩ - ৪ = ৯টি ডিম বিক্রি করেন।\nতাই তিনি ৯ × ২ = ১৮ ডলার উপার্জন করেন।", "18", "right"),
        ("উত্তর হল ১,১৪,২০০।", "114200", "right"),
        ("উত্তর হল ১১৪,২০০।", "114200", "right"),
        ("উত্তর হল ২.৫।", "2.5", "right"),
        ("উত্তর 5 নয়। উত্তর হল 6।", "5", "wrong"),
        ("উত্তর হল ৫ অথবা ৬।", "5", "unsure"),
        ("The answer is 18.", "18", "right"),
        ("答案是 18。", "18", "right"),
        (r"উত্তর: $\boxed{১৮}$", "18", "right"),
        ("১৮", "18", "right"),
    ],
    "de": [
        ("Roger hat anfangs 5 Bälle. 5 + 6 = 11. Die Antwort lautet 11.", "11", "right"),
        ("Die Antwort lautet 12.", "11", "wrong"),
        ("Die Antwort ist **18** Dollar pro Tag.", "18", "right"),
        ("**Antwort:** 18", "18", "right"),
        ("Antwort: 18 $", "18", "right"),
        ("Die Antwort auf die Frage lautet 18.", "18", "right"),
        ("Die endgültige Antwort ist also 18.", "18", "right"),
        ("Die Antwort lautet nicht 18. Die Antwort lautet 17.", "18", "wrong"),
        ("Die Antwort lautet 5 oder 6.", "5", "unsure"),
        ("Die Antwort lautet 1.000.", "1000", "right"),
        ("Die Antwort lautet 1,000.", "1000", "right"),
        ("Die Antwort lautet 1 000.", "1000", "right"),
        ("Die Antwort lautet 1.000.", "1", "unsure"),
        ("Die Antwort lautet 1.000.", "7", "wrong"),
        ("Die Antwort lautet 1.500.", "1.5", "unsure"),
        ("Die Antwort lautet 1,5.", "1.5", "right"),
        ("Die Antwort lautet 1,5.", "15", "wrong"),
        ("Die Antwort lautet 1,5.", "5", "wrong"),
        ("Die Antwort lautet 12,50 €.", "12.5", "right"),
        ("Die Antwort lautet 1.234,50 €.", "1234.5", "right"),
        ("Die Antwort lautet 276.000.", "276000", "right"),
        ("Die Antwort lautet 1.276.000.", "1276000", "right"),
        ("Die Antwort lautet 1,276,000.", "1276000", "right"),
        ("Die Antwort lautet 276'000.", "276000", "right"),
        ("Die Antwort lautet 0,125.", "0.125", "right"),
        ("0,5 * 2.000 = 1.000. Also verdient sie 1.000 Dollar.", "1000", "right"),
        ("Sie isst 3 Eier. 16 - 3 - 4 = 9. Also verdient sie 9 * 2 = 18 Dollar am Tag.", "18", "right"),
        ("Insgesamt braucht man also 3 Knäuel.", "3", "right"),
        (r"Also gilt $\boxed{1.000}$.", "1000", "right"),
        ("So she makes 9 * 2 = $18 every day. The answer is 18.", "18", "right"),
    ],
    "es": [
        ("Roger tiene 5 pelotas. 5 + 6 = 11. La respuesta es 11.", "11", "right"),
        ("La respuesta es 12.", "11", "wrong"),
        ("La respuesta final es **18** dólares.", "18", "right"),
        ("Respuesta: $18", "18", "right"),
        ("Por lo tanto, la respuesta a la pregunta es 18.", "18", "right"),
        ("La respuesta no es 18. La respuesta es 17.", "18", "wrong"),
        ("La respuesta no es 18, sino 17.", "18", "unsure"),
        ("La respuesta es 5 o 6.", "6", "unsure"),
        ("La respuesta es 5 600.", "5600", "right"),
        ("La respuesta es 5.600.", "5600", "right"),
        ("La respuesta es 5,600.", "5600", "right"),
        ("La respuesta es 5.600.", "5.6", "unsure"),
        ("La respuesta es 2,5.", "2.5", "right"),
        ("La respuesta es 2,50 $.", "2.5", "right"),
        ("Gana 9 × 2 = 18. Por lo tanto, gana **18 dólares** al día.", "18", "right"),
        ("Son 3 rollos en total.", "3", "right"),
        ("The answer is 5,600.", "5600", "right"),
        ("答案是 18。", "18", "right"),
    ],
    "fr": [
        ("Roger a 5 balles. 5 + 6 = 11. La réponse est 11.", "11", "right"),
        ("La réponse est 12.", "11", "wrong"),
        ("Réponse : 18", "18", "right"),
        ("**Réponse finale :** **18 $**", "18", "right"),
        ("La réponse à la question est donc 18.", "18", "right"),
        ("La réponse n'est pas 18. La réponse est 17.", "18", "wrong"),
        ("La réponse est 5 ou 6.", "6", "unsure"),
        ("La réponse est 276\u202f000.", "276000", "right"),
        ("La réponse est 276 000 $.", "276000", "right"),
        ("La réponse est 1.000.", "1000", "right"),
        ("La réponse est 2,5.", "2.5", "right"),
        ("La réponse est 1 234,50 €.", "1234.5", "right"),
        (r"Donc $0{,}5 \times 4 = 2$. La réponse est 2.", "2", "right"),
        ("Elle gagne 9 × 2 = 18 $. Donc elle gagne **18 $** par jour.", "18", "right"),
        ("The answer is 18.", "18", "right"),
    ],
    "ja": [
        ("ロジャーは最初に5個のボールを持っていました。5 + 6 = 11。答えは11です。", "11", "right"),
        ("答えは１１です。", "11", "right"),
        ("答えは12です。", "11", "wrong"),
        ("答えは、**18ドル**です。", "18", "right"),
        ("答え: 18", "18", "right"),
        ("したがって、最終的な答えは18ドルです。", "18", "right"),
        ("答えは18ではありません。答えは17です。", "18", "wrong"),
        ("答えは5または6です。", "5", "unsure"),
        ("答えは276,000です。", "276000", "right"),
        ("9 × 2 = 18。したがって、彼女は毎日18ドルを手に入れます。", "18", "right"),
        (r"\boxed{18}", "18", "right"),
        ("The answer is 18.", "18", "right"),
        ("答案是 18。", "18", "right"),
    ],
    "ru": [
        ("У Роджера 5 мячей. 5 + 6 = 11. Ответ — 11.", "11", "right"),
        ("Ответ — 12.", "11", "wrong"),
        ("Ответ: 18 долларов", "18", "right"),
        ("**Ответ:** **18**", "18", "right"),
        ("Ответ — -7.", "-7", "right"),
        ("Ответ - 18.", "18", "right"),
        ("Ответ равен 18.", "18", "right"),
        ("Окончательный ответ: 18.", "18", "right"),
        ("Ответ — 5 или 6.", "5", "unsure"),
        ("Ответ — 276 000.", "276000", "right"),
        ("Ответ — 276.000.", "276000", "right"),
        ("Ответ — 2,5.", "2.5", "right"),
        ("Ответ — 1,500.", "1.5", "unsure"),
        ("Она продает 9 яиц, 9 * 2 = 18. Таким образом, она зарабатывает 18 $ в день.", "18", "right"),
        ("Всего требуется 3 мотка.", "3", "right"),
        ("The answer is 18.", "18", "right"),
    ],
    "sw": [
        ("Roger alianza na mipira 5. 5 + 6 = 11. Jibu ni 11.", "11", "right"),
        ("Jibu ni 12.", "11", "wrong"),
        ("Jibu: 18", "18", "right"),
        ("Kwa hivyo, jibu la mwisho ni **18**.", "18", "right"),
        ("Jibu si 18. Jibu ni 17.", "18", "wrong"),
        ("Jibu ni 5 au 6.", "5", "unsure"),
        ("Jibu ni 276,000.", "276000", "right"),
        ("Jibu ni 1,000.", "1", "wrong"),
        ("Jibu ni 2.5.", "2.5", "right"),
        ("Anauza mayai 9. 9 * 2 = 18. Kwa hivyo anapata $18 kila siku.", "18", "right"),
        ("The answer is 18.", "18", "right"),
    ],
    "te": [
        ("రోజర్ వద్ద 5 బంతులు ఉన్నాయి. 5 + 6 = 11. సమాధానం 11.", "11", "right"),
        ("౫ + ౬ = ౧౧. సమాధానం ౧౧.", "11", "right"),
        ("సమాధానం 12.", "11", "wrong"),
        ("సమాధానం: $18", "18", "right"),
        ("కాబట్టి, తుది సమాధానం **18**.", "18", "right"),
        ("సమాధానం 18 కాదు. సమాధానం 17.", "18", "wrong"),
        ("సమాధానం 2,76,000.", "276000", "right"),
        ("సమాధానం 276,000.", "276000", "right"),
        ("ఆమె 9 * 2 = 18 డాలర్లు సంపాదిస్తుంది.", "18", "right"),
        ("The answer is 18.", "18", "right"),
        ("౧౮", "18", "right"),
    ],
    "th": [
        ("โรเจอร์มีลูกเทนนิส 5 ลูก 5 + 6 = 11 คำตอบคือ 11", "11", "right"),
        ("๕ + ๖ = ๑๑ คำตอบคือ ๑๑", "11", "right"),
        ("คำตอบคือ 12", "11", "wrong"),
        ("คำตอบ: 18 ดอลลาร์", "18", "right"),
        ("ดังนั้น คำตอบสุดท้ายคือ **18** ดอลลาร์", "18", "right"),
        ("คำตอบไม่ใช่ 18\nคำตอบคือ 17", "18", "wrong"),
        ("คำตอบคือ 5 หรือ 6", "5", "unsure"),
        ("คำตอบคือ 276,000", "276000", "right"),
        ("คำตอบคือ ๒๗๖,๐๐๐", "276000", "right"),
        ("เธอขายไข่ 9 ฟอง ดังนั้นเธอได้ 9 × 2 = 18 ดอลลาร์ต่อวัน", "18", "right"),
        ("The answer is 18.", "18", "right"),
    ],
    "en": [
        ("Roger started with 5 balls. 5 + 6 = 11. The answer is 11.", "11", "right"),
        ("The answer is 1,000.", "1", "wrong"),
        ("The answer is 276,000.", "276000", "right"),
        ("答案是 18。", "18", "right"),
    ],
    "zh": [
        ("罗杰一开始有 5 个球。5 + 6 = 11。答案是 11。", "11", "right"),
        ("答案是 １１。", "11", "right"),
        ("答案是 12。", "11", "wrong"),
        ("所以她每天赚 9 × 2 = 18 美元。", "18", "right"),
        ("The answer is 18.", "18", "right"),
    ],
}

ROWS = [Native(language, *row) for language, rows in FORMS.items() for row in rows]

# whole answers to one question (Janet's eggs, MGSM's first), as chat models write them; all come to 18
LESSONS: dict[str, list[str]] = {
    "bn": [
        "ধাপে ধাপে সমাধান করা যাক:\n\n1. **মোট ডিম:** প্রতিদিন ১৬টি\n2. **খাওয়া ও রান্না:** ৩ + ৪ = ৭টি\n"
        "3. **অবশিষ্ট:** ১৬ - ৭ = ৯টি\n\n"
        "প্রতিটি ডিম $২ দরে, তাই ৯ × ২ = ১৮ ডলার।\n\n**উত্তর:** জেনেট প্রতিদিন **১৮ ডলার** উপার্জন করেন।",
        "অবশিষ্ট ডিম 16 - 3 - 4 = 9টি।\n9 × 2 = 18\nসুতরাং, তিনি প্রতিদিন মোট 18 ডলার উপার্জন করেন।",
    ],
    "de": [
        "Gehen wir Schritt für Schritt vor:\n\n1. **Eier pro Tag:** 16\n2. **Verbraucht:** 3 + 4 = 7\n"
        "3. **Übrig:** 16 − 7 = 9\n"
        "4. **Einnahmen:** 9 × 2 = 18 Dollar\n\nJanet verdient also täglich **18 Dollar** auf dem Bauernmarkt.",
        "Sie verkauft $16 - 3 - 4 = 9$ Eier. Bei 2,00 $ pro Ei sind das $9 \\cdot 2{,}00 = 18{,}00$ Dollar.\n\n"
        "**Antwort:** Sie nimmt jeden Tag 18,00 $ ein.",
        "Sie verkauft täglich 9 Eier zu je 2 Dollar. Somit beträgt ihr Einkommen 18 Dollar pro Tag.",
    ],
    "es": [
        "Vamos paso a paso:\n\n1. **Huevos al día:** 16\n2. **Usa:** 3 + 4 = 7\n"
        "3. **Quedan:** 16 - 7 = 9\n\n"
        "Vende cada huevo a $2, es decir, 9 × 2 = 18.\n\nPor lo tanto, Janet gana **$18** todos los días.",
        "Quedan 9 huevos. A 2,00 $ cada uno, son 9 × 2,00 = 18,00 $.\n\n**Respuesta:** gana 18,00 $ al día.",
    ],
    "fr": [
        "Procédons étape par étape :\n\n1. **Œufs par jour :** 16\n2. **Utilisés :** 3 + 4 = 7\n"
        "3. **Restants :** 16 − 7 = 9\n\n"
        "À 2 $ l'œuf, cela fait 9 × 2 = 18 $.\n\nDonc, Janet gagne **18 $** par jour au marché.",
        "Il reste 9 œufs. À 2,00 $ chacun, 9 × 2,00 = 18,00 $.\n\n**Réponse :** elle gagne 18,00 $ chaque jour.",
    ],
    "ja": [
        "順番に考えましょう。\n\n1. **卵の数：** 1日16個\n2. **使う数：** 3 + 4 = 7個\n3. **残り：** 16 - 7 = 9個\n\n"
        "1個2ドルなので、9 × 2 = 18ドルです。\n\nしたがって、彼女は毎日**18ドル**を手に入れています。",
        "残りは16－3－4＝9個です。9×2＝18なので、答えは１８ドルです。",
    ],
    "ru": [
        "Решим по шагам:\n\n1. **Яиц в день:** 16\n2. **Использует:** 3 + 4 = 7\n"
        "3. **Остаётся:** 16 − 7 = 9\n\n"
        "По 2 $ за яйцо это 9 × 2 = 18 $.\n\nТаким образом, Дженет зарабатывает **18 долларов** в день.",
        "Остаётся 9 яиц. 9 · 2,00 = 18,00 доллара.\n\n**Ответ:** она зарабатывает 18,00 $ каждый день.",
    ],
    "sw": [
        "Tufanye hatua kwa hatua:\n\n1. **Mayai kwa siku:** 16\n2. **Anayotumia:** 3 + 4 = 7\n"
        "3. **Yanayobaki:** 16 - 7 = 9\n\n"
        "Kila yai ni $2, kwa hivyo 9 × 2 = 18.\n\nKwa hivyo, Janet anapata **$18** kila siku.",
        "Yanabaki mayai 9. 9 × 2 = 18.\n\n**Jibu:** anapata dola 18 kila siku.",
    ],
    "te": [
        "దశలవారీగా చూద్దాం:\n\n1. **మొత్తం గుడ్లు:** 16\n2. **వాడినవి:** 3 + 4 = 7\n"
        "3. **మిగిలినవి:** 16 - 7 = 9\n\n"
        "ఒక్కో గుడ్డు $2, కాబట్టి 9 × 2 = 18.\n\nకాబట్టి, జనెత్ ప్రతిరోజూ **$18** సంపాదిస్తుంది.",
        "మిగిలినవి 9 గుడ్లు. 9 × 2 = 18.\n\n**సమాధానం:** ఆమె ప్రతిరోజూ 18 డాలర్లు సంపాదిస్తుంది.",
    ],
    "th": [
        "คิดทีละขั้นตอน:\n\n1. **ไข่ต่อวัน:** 16 ฟอง\n2. **ใช้ไป:** 3 + 4 = 7 ฟอง\n"
        "3. **เหลือ:** 16 - 7 = 9 ฟอง\n\n"
        "ขายฟองละ $2 ดังนั้น 9 × 2 = 18\n\nดังนั้น เจเน็ตมีรายได้วันละ **18 ดอลลาร์**",
        "เหลือไข่ 9 ฟอง 9 × 2 = 18\n\n**คำตอบ:** เธอมีรายได้วันละ 18 ดอลลาร์",
    ],
}
