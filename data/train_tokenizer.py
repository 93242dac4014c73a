"""
Training of a tokenizer: sentencepiece's byte-pair encoding, with the settings of LLaMA.
"""

import io
from collections import Counter
from itertools import chain

from data.program import UserError


def without_rare(texts, most):
    """
    Return texts without all characters but the `most` frequent ones. Those that a tokenizer does
    not learn it encodes byte by byte.
    """
    counts = Counter(chain.from_iterable(texts))
    rare = sorted(counts, key=lambda character: (-counts[character], character))[most:]
    table = dict.fromkeys(map(ord, rare))
    return [text.translate(table) for text in texts]


def train_pieces(texts, vocab):
    """Train sentencepiece on texts, and return the bytes of its model, of `vocab` pieces."""
    from sentencepiece import SentencePieceTrainer
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=vocab,
        # as LLaMA: bytes for unknown characters, digits one by one
        model_type="bpe", byte_fallback=True, split_digits=True,
        # no normalisation, so that decoding returns the text as it was
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, max_sentence_length=1 << 20,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        hard_vocab_limit=False, minloglevel=2)
    return model.getvalue()


def train_tokenizer(template, texts, vocab):
    """
    Return the bytes of a sentencepiece model of at most `vocab` pieces; UserError if there is none.

    template: texts whose characters all become pieces.
    """
    try:
        try:
            return train_pieces(template + texts, vocab)
        except RuntimeError:
            # as with Chinese, there may be more characters than pieces
            return train_pieces(template + without_rare(texts, vocab // 4), vocab)
    except RuntimeError as error:
        raise UserError(f"no tokenizer of {vocab} pieces can be learnt ({error})") from None
