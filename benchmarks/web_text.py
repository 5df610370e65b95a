"""Quality and speed of libraries that extract the main text of web pages.

The pages are made here, so that their main text is known: articles, forums, listings and references,
in four languages, each with the navigation, side bars, banners, scripts and footers that pages have.
Precision and recall are those of the words of the main text (Chinese: characters).

    python benchmarks/web_text.py [--pages 400] [--seed 1]

Libraries that are not installed are left out. The last line is a JSON object.
"""

import argparse
import importlib.util
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from html import escape

Extract = Callable[[str], str]
WORDS = {
    "en": "the river town people said year work house small water light road winter school market "
    "because several often became under history local bridge after open music paper story evening",
    "ru": "река город люди сказал год работа дом маленький вода свет дорога зима школа рынок потому "
    "несколько часто стал под история местный мост после открыл музыка бумага рассказ вечер",
    "ar": "النهر المدينة الناس قال السنة العمل البيت صغير الماء الضوء الطريق الشتاء المدرسة السوق "
    "لأن عدة غالبا أصبح تحت التاريخ المحلي الجسر بعد فتح الموسيقى الورق القصة المساء",
    "zh": "河 城市 人们 说 年 工作 房子 小 水 光 道路 冬天 学校 市场 因为 几个 经常 成为 下面 历史 当地 "
    "桥 之后 打开 音乐 纸 故事 晚上",
}
MENU = {
    "en": "Home News Sport Contact Login Subscribe Privacy Cookies Share Next Previous",
    "ru": "Главная Новости Спорт Контакты Войти Подписка Поделиться Далее Назад",
    "ar": "الرئيسية الأخبار الرياضة اتصل دخول اشترك مشاركة التالي السابق",
    "zh": "首页 新闻 体育 联系 登录 订阅 隐私 分享 下一页 上一页",
}


class Page:
    """Makes pages of one language, and keeps their main text.

    Attributes:
        text: the main text of the page that is being made.
    """

    def __init__(self, language: str, random_: random.Random) -> None:
        self.language = language
        self.text: list[str] = []
        self._random = random_

    def words(self, fewest: int, most: int) -> str:
        joiner = "" if self.language == "zh" else " "
        count = self._random.randint(fewest, most)
        return joiner.join(self._random.choices(WORDS[self.language].split(), k=count))

    def main(self, tag: str, fewest: int = 25, most: int = 90) -> str:
        """Return an element of main text."""
        text = self.words(fewest, most)
        text += "。" if self.language == "zh" else "."
        self.text.append(text)
        return f"<{tag}>{escape(text)}</{tag.split()[0]}>"

    def menu(self, tag: str, name: str) -> str:
        links = "".join(
            f'<li><a href="/{i}">{word}</a></li>'
            for i, word in enumerate(MENU[self.language].split())
        )
        return f'<{tag} class="{name}"><ul>{links}</ul></{tag}>'

    def around(self, body: str) -> str:
        """Return a page with a body and what surrounds it."""
        script = "<script>var a = {'text': '<p>not text</p>'}; for (;;) { break }</script>"
        banner = f'<div id="cookie-banner" class="cookie">{self.words(8, 12)}</div>'
        side = "".join(f'<li><a href="/r{i}">{self.words(4, 8)}</a></li>' for i in range(8))
        return (
            f'<!DOCTYPE html><html lang="{self.language}"><head><title>{self.words(3, 6)}</title>'
            f"<style>p {{ color: red }}</style>{script}</head><body>{banner}"
            f"<header>{self.menu('nav', 'navigation')}</header>{body}"
            f'<aside class="sidebar related"><h3>{self.words(2, 3)}</h3><ul>{side}</ul></aside>'
            f"{self.menu('footer', 'footer')}{script}</body></html>"
        )

    def article(self) -> str:
        parts = [self.main("h1", 4, 8)]
        for _ in range(self._random.randint(3, 9)):
            parts.append(self.main("p"))
            if self._random.random() < 0.2:
                parts.append(self.main("h2", 3, 6))
            if self._random.random() < 0.1:
                parts.append(f'<figure><img src="a.png">{self.main("figcaption", 6, 12)}</figure>')
        return self.around(f'<main><article class="post">{"".join(parts)}</article></main>')

    def plain_article(self) -> str:
        """Return an article without the elements that HTML 5 has for it."""
        parts = "<br><br>".join(self.main("span") for _ in range(6))
        return self.around(f'<table><tr><td id="content">{parts}</td></tr></table>')

    def forum(self) -> str:
        posts = "".join(
            f'<div class="post"><div class="author"><a href="/u{i}">user{i}</a> <span>{i} posts</span>'
            f'</div><div class="message">{self.main("p", 10, 50)}</div>'
            f'<div class="signature">{self.words(3, 5)}</div></div>'
            for i in range(self._random.randint(3, 8))
        )
        return self.around(f'<div class="thread">{self.main("h1", 4, 8)}{posts}</div>')

    def listing(self) -> str:
        items = "".join(
            f'<li class="product"><a href="/p{i}">{self.main("h3", 2, 4)}</a>{self.main("p", 10, 25)}'
            '<span class="price">9.99</span><button>+</button></li>'
            for i in range(self._random.randint(5, 12))
        )
        return self.around(f'<div class="results"><ul>{items}</ul></div>')

    def reference(self) -> str:
        rows = "".join(
            f"<tr>{self.main('td', 1, 3)}{self.main('td', 6, 14)}</tr>" for _ in range(8)
        )
        text = self.main("h1", 2, 4) + self.main("p") + f"<table>{rows}</table>" + self.main("p")
        return self.around(f'<main><div class="document">{text}</div></main>')


KINDS = ("article", "plain_article", "forum", "listing", "reference")


def pages(number: int, seed: int) -> list[tuple[str, str, str]]:
    """Return (kind and language, HTML, main text) of each page."""
    made: list[tuple[str, str, str]] = []
    for i in range(number):
        language = list(WORDS)[i // len(KINDS) % len(WORDS)]
        page = Page(language, random.Random(f"{seed} {i}"))
        kind = KINDS[i % len(KINDS)]
        html = getattr(page, kind)()
        made.append((f"{kind} {language}", html, "\n".join(page.text)))
    return made


def libraries() -> dict[str, Extract]:
    """Return the extractors that are installed."""
    found: dict[str, Extract] = {}
    if importlib.util.find_spec("resiliparse"):
        from resiliparse.extract.html2text import extract_plain_text

        found["resiliparse"] = lambda html: extract_plain_text(html, main_content=True)
        found["resiliparse, alt. settings"] = lambda html: extract_plain_text(
            html, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False
        )
        found["resiliparse, all text"] = lambda html: extract_plain_text(html)
    if importlib.util.find_spec("trafilatura"):
        import trafilatura

        found["trafilatura"] = lambda html: trafilatura.extract(html) or ""
        found["trafilatura, fast"] = lambda html: (
            trafilatura.extract(html, fast=True, include_comments=True, include_tables=True) or ""
        )
        found["trafilatura, recall"] = lambda html: (
            trafilatura.extract(html, favor_recall=True, include_comments=True) or ""
        )
    return found


def counted(text: str, language: str) -> Counter[str]:
    return Counter([c for c in text if not c.isspace()] if language == "zh" else text.split())


def measure(extract: Extract, made: list[tuple[str, str, str]]) -> dict[str, object]:
    """Return precision, recall and speed of an extractor, and its F1 by kind of page."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    size = sum(len(html.encode()) for _, html, _ in made)
    begin = time.process_time()
    texts = [extract(html) for _, html, _ in made]
    seconds = time.process_time() - begin
    for (kind, _, wanted), text in zip(made, texts, strict=True):
        language = kind.split()[1]
        truth, found = counted(wanted, language), counted(text, language)
        same = (truth & found).total()
        for name in ("all", *kind.split()):
            sums[name][0] += same
            sums[name][1] += found.total()
            sums[name][2] += truth.total()
    rates = {name: (s / max(f, 1), s / max(t, 1)) for name, (s, f, t) in sums.items()}
    f1 = {name: round(2 * p * r / max(p + r, 1e-9), 3) for name, (p, r) in rates.items()}
    precision, recall = rates["all"]
    return {
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": f1,
        "mb_html_per_cpu_second": round(size / 1e6 / seconds, 2),
        "pages_per_cpu_second": round(len(made) / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    made = pages(arguments.pages, arguments.seed)
    result = {name: measure(extract, made) for name, extract in libraries().items()}
    for name, found in result.items():
        print(f"{name}: {found}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
