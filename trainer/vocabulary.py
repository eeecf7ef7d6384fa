"""Small vocabularies for encoders with random weights: letters, word endings and common words."""

import string
from pathlib import Path

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

WORDS = """
the a an and or but if then of to in on at by for with from about into over after before is are was were be been being have has had do does did not
no yes it its this that these those i you he she we they me him her us them my your his our their who what which when where why how all any both each
few more most other some such only own same so than too very can will just should now one two three first second new old good bad great little long
high low right wrong big small next last early late young important public private able man woman child world life hand part place case week company
system program question work government number night point home water room mother area money story fact month lot study book eye job word business
issue side kind head house service friend father power hour game line end member law car city community name president team minute idea body
information back parent face others level office door health person art war history party result change morning reason research girl guy moment air
teacher force education film movie plot actor actress scene camera script director music character ending dialogue drama comedy horror action romance
thriller sequel cast performance role audience screen picture show series episode wonderful brilliant moving superb delightful awful dull clumsy
tedious dreadful terrible boring funny beautiful amazing excellent poor worst best better worse love like hate enjoy watch see seen saw think thought
feel felt make made find found give gave tell told become leave left call try ask need seem help play run move live believe bring happen write sit
stand lose pay meet include continue set learn lead understand stop create speak read spend grow open walk win offer remember consider appear buy
wait serve die send expect build stay fall cut reach kill remain
""".split()

ENDINGS = "##s ##ed ##ing ##er ##est ##ly ##ness ##ment ##ful ##less ##able ##tion ##y ##al ##ive".split()


def write_wordpiece(folder: Path, size: int) -> Path:
    """folder/vocab.txt with exactly `size` pieces; any ASCII text can be written with them."""
    letters = string.ascii_lowercase + string.digits
    pieces = list(dict.fromkeys([*SPECIAL, *string.punctuation, *letters, *(f"##{c}" for c in letters), *ENDINGS, *WORDS]))
    if len(pieces) > size:
        raise ValueError(f"The vocabulary must have room for {len(pieces)} pieces. Received: a size of {size}.")
    pieces += [f"[unused{i}]" for i in range(size - len(pieces))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def write_sentencepiece(folder: Path, size: int) -> Path:
    """folder/pieces.model, a unigram SentencePiece model of `size` pieces with ALBERT's special tokens."""
    import sentencepiece  # only the ALBERT preset needs it

    words = list(dict.fromkeys(WORDS))
    lines = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(12)) for i in range(2000)]
    lines += [string.ascii_lowercase, string.digits, string.punctuation] * 5
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "pieces"),
        vocab_size=size,
        model_type="unigram",
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        unk_piece="<unk>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
    )
    return folder / "pieces.model"
