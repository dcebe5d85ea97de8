"""What people would ask for in a photo, from its captions: their n-grams, "red shirt" or "dog in
water", and how many of the captions say each.
"""

import re
from collections import Counter
from collections.abc import Iterable

FORMS = ("{}", "a {}")
LONGEST = 4  # words, articles left out
# of fewer photos nothing is learned, and what a larger share of them has says little
MIN_PHOTOS, MAX_SHARE = 6, 0.08
MIN_CAPTIONS = 2  # of one photo, somewhere: one writer's turns of phrase are left out
ARTICLES = re.compile("a|an|the|some|his|her|their|its|this|that")
STOPS = re.compile(
    f"{ARTICLES.pattern}|and|or|of|in|on|at|to|with|is|are|was|were|be|being|been|has|have|as|by|"
    "for|from|into|onto|over|under|near|next|out|up|down|off|while|through|who|which|it|he|she|"
    "they|them|him|it's|there|one|two|three|four|other|another|very|several|many|few|each|all|"
    "both|together|around|behind|against|along|across|front|side|top|back|what|where|when"
)


def ngrams_of(line: str) -> set[str]:
    """Return the n-grams of a caption that neither begin nor end with a word that says nothing."""
    words = [word.strip(".,;:!?\"'()").lower() for word in line.split()]
    words = [word for word in words if word and not ARTICLES.fullmatch(word)]
    return {
        " ".join(words[start:end])
        for start in range(len(words))
        for end in range(start + 1, min(start + LONGEST, len(words)) + 1)
        if not STOPS.fullmatch(words[start]) and not STOPS.fullmatch(words[end - 1])
    }


def count_ngrams(pictures: Iterable[list[str]]) -> list[Counter[str]]:
    """Return, for the captions of each picture, how many of them say each n-gram."""
    return [Counter(ngram for line in lines for ngram in ngrams_of(line)) for lines in pictures]


def choose_ngrams(photos: list[Counter[str]]) -> list[str]:
    """Return the n-grams to learn: of several photos, and said by two captions of one of them."""
    seen = Counter(ngram for counts in photos for ngram in counts)
    agreed = {ngram for counts in photos for ngram, n in counts.items() if n >= MIN_CAPTIONS}
    most = MAX_SHARE * len(photos)
    return sorted(ngram for ngram in agreed if MIN_PHOTOS <= seen[ngram] <= most)
