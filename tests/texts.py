"""Real text in many scripts: article 1 of the Universal Declaration of Human Rights.

Documents made of words, too.
"""

from __future__ import annotations

import random
from pathlib import Path

ARTICLE_1 = """\
All human beings are born free and equal in dignity and rights. They are endowed with reason and \
conscience and should act towards one another in a spirit of brotherhood.
Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison \
et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.
Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und \
Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.
Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de \
razón y conciencia, deben comportarse fraternalmente los unos con los otros.
Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и \
совестью и должны поступать в отношении друг друга в духе братства.
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι \
προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα \
αδελφοσύνης.
人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。
すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\
人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 \
양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.
يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا وعليهم أن يعامل \
بعضهم بعضًا بروح الإخاء.
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और \
अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך חובה \
עליהם לנהוג איש ברעהו ברוח של אחווה.
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม \
และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ
Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve \
birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.
"""
MULTILINGUAL = ARTICLE_1.encode()


def write_documents(folder: Path) -> Path:
    """Fill a folder with documents that are not all alike."""
    generator = random.Random(0)
    words = ["alpha", "bet", "gamma delta", "epsilon\n", "zeta;", "größer", "日本"]
    for number in range(40):
        document = " ".join(generator.choice(words) for _ in range(100))
        (folder / f"{number}.txt").write_text(document)
    (folder / "odd").write_bytes(b"\xff\xfe not utf-8 " * 20)
    return folder
