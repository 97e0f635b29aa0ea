"""What a rule from scores to masks looks like."""


class Mask:
    """Base class: a pure function from scores to zeros and ones."""

    def __call__(self, scores, alive, places=None):
        """Returns the masks of weights.

        Args:
            scores: List of float32 tensors, one for each prunable weight.
            alive: List of bool tensors of the same shapes; `False` where a
                weight is frozen, which the caller masks in any case.
            places: Integer scalar, how many weights may be kept at present;
                0 or `None`: as the rule itself says.

        Returns:
            List of float32 tensors of zeros and ones, with a gradient to the
            scores.
        """
        raise NotImplementedError

    def surrogate(self, score):
        """Returns what the straight-through gradient of a mask goes to.

        Args:
            score: Float32 tensor.

        Returns:
            Tensor of the score's shape: the score itself, by default.
        """
        return score

    @classmethod
    def from_config(cls, config):
        return cls(**config)
