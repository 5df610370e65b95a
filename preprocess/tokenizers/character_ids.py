"""The numbers that words are spelled with: a byte of UTF-8 is its value, the others are marks.

They are those of ELMo (bilm-tf, `UnicodeCharsVocabulary`) in training; its weight files count from 1.
"""

TEXT_BEGIN, TEXT_END = 256, 257
"""In place of the bytes of <s> and </s>."""

WORD_BEGIN, WORD_END = 258, 259
PAD = 260
"""After a word's end."""

CHARACTERS = 261
"""Different numbers."""
