"""What a batch of requests is on the devices: padded prompts, limits, temperatures and seeds."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flax_distil.model.config import WhisperConfig
from flax_distil.text.tokenizer import MAX_PREVIOUS_TOKENS
from flax_distil.transcription.decoding_request import DecodingRequest
from flax_distil.transcription.prompts import Prompts


@dataclasses.dataclass(frozen=True)
class RequestArrays:
    """Makes the arrays of requests.

    Attributes:
        config: Shape of the model.
        prompts: Builds the prompts of requests.
        end: The token that pads prompts.
        max_new_tokens: Maximum number of tokens per window.
    """

    config: WhisperConfig
    prompts: Prompts
    end: int
    max_new_tokens: int

    def of_batch(
        self, requests: Sequence[DecodingRequest | None], *, least_slots: int = 0
    ) -> dict[str, np.ndarray]:
        """Return the fields of ``GenerateInputs`` besides the encoder output.

        Args:
            requests: One for each row, at least one of them; None leaves a row idle.
            least_slots: Prompts are padded to at least this length.

        Raises:
            ValueError: If a prompt leaves no room for a token.
        """
        anything = next(request for request in requests if request is not None)
        given = [request or dataclasses.replace(anything, limit=0) for request in requests]
        lengths = [len(request.prompt) for request in given]
        slots = max(least_slots, self.prompt_slots(max(lengths)))
        if max(lengths) > slots:
            raise ValueError(f"a prompt has {max(lengths)} tokens, and {slots} are the most")
        prompt_BP = np.full((len(given), slots), self.end, np.int32)
        for row, request in enumerate(given):
            prompt_BP[row, : lengths[row]] = request.prompt
        limits = [self.limit(request) for request in given]
        batch = {
            "prompt_BP": prompt_BP,
            "prompt_length_B": np.asarray(lengths, np.int32),
            "limit_B": np.asarray(limits, np.int32),
        }
        if self.prompts.prefix:
            prefixes = [self.prompts.prefix_length(request.prompt) for request in given]
            batch["prefix_length_B"] = np.asarray(prefixes, np.int32)
        if any(request.temperature > 0 for request in given):
            batch["temperature_B"] = np.asarray([request.temperature for request in given], np.float32)
            batch["seed_B"] = np.asarray([request.seed for request in given], np.int32)
        return batch

    @property
    def first_slots(self) -> int:
        """Length that prompts are padded to which hold the given texts, with or without the prefix."""
        language = self.prompts.any_language or "en"
        built = (
            self.prompts.build(language, self.prompts.initial, with_prefix=with_prefix)
            for with_prefix in (False, True)
        )
        return self.prompt_slots(max(map(len, built)))

    def limit(self, request: DecodingRequest) -> int:
        """Return how many tokens a window may have."""
        room = self.config.max_target_positions - len(request.prompt)
        wanted = self.max_new_tokens if request.limit is None else min(request.limit, self.max_new_tokens)
        return min(wanted, room)

    def prompt_slots(self, longest: int) -> int:
        """Return the length that prompts are padded to: one of three, so at most three are compiled."""
        prefix = len(self.prompts.prefix)
        for slots in (self.prompts.shortest, self.prompts.shortest + prefix):
            if longest <= slots:
                return slots
        return min(
            self.prompts.shortest + prefix + 1 + MAX_PREVIOUS_TOKENS, self.config.max_target_positions - 1
        )
