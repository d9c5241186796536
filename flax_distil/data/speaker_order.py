"""Rows of a table in an order in which those of one speaker follow each other, to be joined."""

from flax_distil.data.speech_data import SpeechData


def grouped_by_speaker(data: SpeechData) -> SpeechData:
    """Put the rows of each speaker together; within a speaker, and among speakers, the order stays.

    Args:
        data: A table; without a column of speakers it stays as it is.

    Returns:
        The same rows, speakers in the order of their first rows. A row without a speaker is one by itself.
    """
    if data.speaker_column is None:
        return data
    first: dict[object, int] = {}
    places = [
        row if speaker is None else first.setdefault(speaker, row)
        for row, speaker in enumerate(data.column(data.speaker_column))
    ]
    order = sorted(range(len(data)), key=lambda row: (places[row], row))
    return data if order == [*range(len(data))] else data.select(order)
