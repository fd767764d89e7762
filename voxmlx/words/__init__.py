"""Words with times from a stream of token ids, and segments from words.

Everything here is incremental and keeps only what is still open, so a stream may last forever. It
knows the tokenizer's bytes and the 80 ms grid of tokens, but neither audio nor models.
"""

from voxmlx.words.characters import ends_sentence, join_words
from voxmlx.words.grouper import WordGrouper
from voxmlx.words.segments import Segmenter, segments_of

__all__ = ["Segmenter", "WordGrouper", "ends_sentence", "join_words", "segments_of"]
