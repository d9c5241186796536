from flax_distil.metrics.compound_errors import compound_errors


def count(reference, prediction, **options):
    counts = compound_errors(reference, prediction, str.lower, **options)
    return counts.substitutions, counts.deletions, counts.insertions, counts.reference_words


def test_a_compound_may_be_split_on_either_side():
    assert count("the white paper", "the Whitepaper") == (0, 0, 0, 3)
    assert count("the whitepaper", "the white paper") == (0, 0, 0, 2)


def test_other_errors_count_as_ever():
    assert count("the white paper is here today", "a whitepaper here is today") == (1, 1, 1, 6)


def test_a_reference_without_words_has_insertions_alone():
    assert count("", "well then") == (0, 0, 2, 0)


def test_words_that_are_joined_first_count_once():
    assert count("der Donau dampf er", "der Donaudampf er", join_first=True) == (0, 0, 0, 3)
    assert count("der Donau dampf er", "der Donaudampf sie", join_first=True) == (1, 0, 0, 4)
