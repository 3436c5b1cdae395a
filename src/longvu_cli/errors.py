"""The errors of the library: every failure a user can meet has a type here.

::

    LongVUError
    ├── UsageError              the request contradicts itself or cannot be met
    │   ├── QuestionTooLong     the question leaves no room for the video
    │   ├── BadSubtitles        a file of subtitles cannot be read, or is none
    │   ├── BadRow              a row of a list of questions says too little, or what no option takes
    │   ├── BadBenchmark        the files of a benchmark are missing, or say something else
    │   ├── ExtraNotInstalled   it needs a package that is installed on request only
    │   ├── ServerRefused       a server does not take the request: wrong token, too large, or no longvu at all
    │   └── TrainingError       a training cannot be done as asked
    │       ├── BadTrainingData the training data cannot be read, or a line of it is wrong
    │       └── TrainingStateMismatch  the saved state is damaged, or that of another training
    ├── VideoError              the video cannot be read
    │   ├── VideoNotFound       no such file, a directory, a pipe, a URL, no permission, empty
    │   ├── NotAVideo           the bytes are of no accepted media format
    │   ├── NoVideoStream       audio only, or only cover art
    │   ├── NoFrames            a video stream of which no frame could be decoded (in the range asked for)
    │   └── DecodingFailed      the decoder crashed, hung, or needed more memory than it may have
    ├── WeightsError            the weights cannot be used
    │   ├── WeightsNotFound     not on this machine, or no such repository, revision or file
    │   ├── WeightsGated        the hub asks for a login or a licence
    │   ├── HubUnreachable      the hub does not answer, or offline mode is on
    │   ├── DownloadFailed      a transfer was cut, or there is no room on the disk
    │   ├── NotACheckpoint      the folder is no LongVU checkpoint, or of a kind that is not supported
    │   └── WeightsDamaged      a file is malformed, or tensors are missing, unexpected or of the wrong shape
    ├── DeviceError             the device cannot do it
    │   ├── DeviceUnavailable   no such device, or a library that it needs is missing
    │   ├── DeviceOutOfMemory   the model or the video does not fit
    │   ├── NoScratchSpace      a temporary file cannot be written: the disk is full, for instance
    │   ├── ServerUnreachable   no server answers at the address, or it broke off
    │   ├── ServerBusy          the server takes no more requests for now
    │   ├── WorkerDied          processes that were to answer died, again and again
    │   ├── NonFiniteLogits     the model computed NaN or infinity (a data type too small)
    │   └── NonFiniteLoss       a training came to NaN or infinity (a learning rate too large)
    └── UnexpectedError         an error that no one thought of: a bug

The command line turns each into one sentence, a hint and an exit code (``cli/errors.py``).
"""

from __future__ import annotations


class LongVUError(Exception):
    """Base of every error of the library.

    Args:
        message: one sentence that says what happened.
        hint: the next thing to try; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LongVUError):
    """The request contradicts itself or cannot be met as asked."""


class QuestionTooLong(UsageError):
    """The prompt fills the context: no token is left for the video."""


class BadSubtitles(UsageError):
    """A file of subtitles cannot be read, or is none."""


class BadRow(UsageError):
    """A row of a list of questions cannot be read."""


class BadBenchmark(UsageError):
    """The files of a benchmark cannot be read, or are not in its public form."""


class ExtraNotInstalled(UsageError):
    """What was asked for needs a package that is installed on request only."""


class ServerRefused(UsageError):
    """A server does not take the request as it is."""


class TrainingError(UsageError):
    """A training cannot be done as asked."""


class BadTrainingData(TrainingError):
    """The training data cannot be read, or a line of it is wrong."""


class TrainingStateMismatch(TrainingError):
    """The saved state of a training is damaged, or that of another one."""


class VideoError(LongVUError):
    """The video cannot be read."""


class VideoNotFound(VideoError):
    """There is no readable regular, non-empty file at the path."""


class NotAVideo(VideoError):
    """The file is of no accepted media format."""


class NoVideoStream(VideoError):
    """The file has no video stream (audio only, or only cover art)."""


class NoFrames(VideoError):
    """No frame could be decoded in the range that was asked for."""


class DecodingFailed(VideoError):
    """The decoder crashed on the file, hung, or needed more memory than it may have."""


class WeightsError(LongVUError):
    """The weights cannot be used."""


class WeightsNotFound(WeightsError):
    """The weights are not on this machine, or the hub has no such repository, revision or file."""


class WeightsGated(WeightsError):
    """The hub wants a login, or a licence accepted, before it gives the weights."""


class HubUnreachable(WeightsError):
    """The hub does not answer, or offline mode is on and the weights are not in the cache."""


class DownloadFailed(WeightsError):
    """A transfer broke off, or the disk is full or not writable."""


class NotACheckpoint(WeightsError):
    """The folder is no LongVU checkpoint, or one of a kind that is not supported."""


class WeightsDamaged(WeightsError):
    """A weight file is malformed, or its tensors are not the ones that the model has."""


class DeviceError(LongVUError):
    """The device cannot do what was asked."""


class DeviceUnavailable(DeviceError):
    """There is no such device, or a library that it needs is missing."""


class DeviceOutOfMemory(DeviceError):
    """The model or the video does not fit into the device's memory."""


class NoScratchSpace(DeviceError):
    """A temporary file cannot be written, or read back: the disk is full, for instance."""


class ServerUnreachable(DeviceError):
    """No server answers at the address, or it broke off: what was to answer is not there."""


class ServerBusy(DeviceError):
    """The server takes no more requests for now."""


class WorkerDied(DeviceError):
    """Processes that were to answer died, again and again."""


class NonFiniteLogits(DeviceError):
    """The language model computed NaN or infinity, usually because of a data type that is too small."""


class NonFiniteLoss(DeviceError):
    """A training came to NaN or infinity, usually because of a learning rate that is too large."""


class UnexpectedError(LongVUError):
    """An error that no one thought of: a bug."""

    @classmethod
    def of(cls, error: Exception) -> UnexpectedError:
        """As it is told."""
        return cls(
            f"an unexpected error, which is a bug in longvu: {type(error).__name__}: {error}",
            hint="please report it with the output of the same command and --verbose",
        )
