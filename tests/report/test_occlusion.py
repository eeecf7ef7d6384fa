"""Which words mattered."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import tokenization
from trainer.report import occlusion


def words_of(*lengths):
    """Words of so many tokens, all tokens different."""
    return [np.arange(100 * i, 100 * i + n, dtype=np.int32) for i, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a good  film\n", ["a", "good", "film"]),
        ("\u597d\u7535\u5f71 ok", ["\u597d", "\u7535", "\u5f71", "ok"]),
        (" ", []),
    ],
)
def test_words_are_what_spaces_separate_and_each_cjk_character(text, words):
    assert [text[start:end] for start, end in occlusion.split_words(text)] == words


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
@pytest.mark.parametrize("length", [3, 10, 11])
def test_the_visible_tokens_are_those_of_the_model(truncation, length):
    tokens = tf.RaggedTensor.from_row_lengths(tf.range(length), [length])
    kept = tokenization.truncate(tokens, tf.constant(7), truncation)
    assert occlusion.visible_positions(length, 7, truncation).tolist() == kept[0].numpy().tolist()


def test_a_short_text_is_scored_without_each_word():
    plan = occlusion.plan_variants(words_of(1, 2, 1), 10, "head")
    assert plan.groups == ((0, 1), (1, 2), (2, 3))
    assert [row.tolist() for row in plan.rows] == [[0, 100, 101, 200], [100, 101, 200], [0, 200], [0, 100, 101]]


def test_a_long_text_is_scored_without_groups_of_neighbors():
    plan = occlusion.plan_variants(words_of(*[1] * 400), 400, "head")
    assert sum(map(len, plan.rows)) <= occlusion.TOKENS_PER_TEXT + 400
    assert [first for first, _ in plan.groups] == [0, *(last for _, last in plan.groups[:-1])]
    assert plan.groups[-1][1] == 400


def test_what_the_model_does_not_read_is_in_no_group():
    plan = occlusion.plan_variants(words_of(1, 1, 1, 1, 1), 2, "head_tail")
    assert plan.groups == ((0, 1), (4, 5))
    assert plan.rows[0].tolist() == [0, 400]


def test_pieces_make_the_text_again_and_have_the_falls():
    text = " a good  film, \u00e4h"
    spans = occlusion.split_words(text)
    plan = occlusion.plan_variants(words_of(1, 1, 1, 1), 3, "head")
    found = occlusion.describe_effects(7, text, spans, plan, np.array([0.9, 0.8, 0.2, 0.95]))
    assert "".join(found.pieces) == text
    effects = dict(zip(found.pieces, found.effects, strict=True))
    assert effects["good"] == pytest.approx(0.7)
    assert effects["film,"] == pytest.approx(-0.05)
    assert np.isnan(effects[" \u00e4h"])
    assert found.row == 7


def test_an_empty_text_has_one_variant():
    assert [row.tolist() for row in occlusion.plan_variants([], 10, "head").rows] == [[]]
